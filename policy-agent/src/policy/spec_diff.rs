//! What a new specification of a sandbox changes.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::SandboxSpec;

/// The differences between two specifications of a sandbox. Secrets are not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecDiff {
    /// Entries that are new in `allowOut` or `denyOut`, as `allowOut 203.0.113.7`.
    pub added: Vec<String>,
    /// Entries that are not there any more.
    pub removed: Vec<String>,
    /// Other fields: `mac: null → "02:fc:00:00:00:05"`.
    pub fields: Vec<String>,
}

impl SpecDiff {
    /// Compares the specification in force, if there is one, with the new one.
    #[must_use]
    pub fn between(before: Option<&SandboxSpec>, after: &SandboxSpec) -> Self {
        let mut diff = Self::default();
        let [allowed, denied] = before.map(lists_of).unwrap_or_default();
        let [now_allowed, now_denied] = lists_of(after);
        diff.compare_list("allowOut", allowed, now_allowed);
        diff.compare_list("denyOut", denied, now_denied);
        if let Some(before) = before.filter(|before| *before != after) {
            diff.compare_fields(before, after);
        }
        diff
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.fields.is_empty()
    }

    fn compare_list(&mut self, name: &str, before: &[String], after: &[String]) {
        let mut left = HashMap::<&str, usize>::new();
        for entry in before {
            *left.entry(entry).or_default() += 1;
        }
        let is_sorted_anew = before.len() == after.len() && before != after;
        let (added_before, removed_before) = (self.added.len(), self.removed.len());
        for entry in after {
            match left.get_mut(entry.as_str()).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => self.added.push(format!("{name} {entry}")),
            }
        }
        for entry in before {
            if let Some(count) = left.get_mut(entry.as_str()).filter(|count| **count > 0) {
                *count -= 1;
                self.removed.push(format!("{name} {entry}"));
            }
        }
        let is_equal = self.added.len() == added_before && self.removed.len() == removed_before;
        if is_sorted_anew && is_equal {
            self.fields.push(format!("network.{name}: the order of its entries"));
        }
    }

    fn compare_fields(&mut self, before: &SandboxSpec, after: &SandboxSpec) {
        let (old, new) = (other_fields(before), other_fields(after));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let value = |fields: &Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
            let (old, new) = (value(&old), value(&new));
            if old != new {
                self.fields.push(format!("{name}: {old} → {new}"));
            }
        }
        let proxies = (&before.network.egress_proxy, &after.network.egress_proxy);
        if proxies.0 != proxies.1 && !self.fields.iter().any(|it| it.contains("egressProxy")) {
            self.fields.push("network.egressProxy: its password".to_owned());
        }
        let rules = (&before.network.rules, &after.network.rules);
        if rules.0 != rules.1 && !self.fields.iter().any(|it| it.starts_with("network.rules")) {
            self.fields.push("network.rules: values of headers".to_owned());
        }
    }
}

/// `allowOut` and `denyOut`.
fn lists_of(spec: &SandboxSpec) -> [&[String]; 2] {
    [&spec.network.allow_out, &spec.network.deny_out]
        .map(|list| list.as_deref().unwrap_or_default())
}

/// The fields other than the lists, those of `network` with this prefix.
fn other_fields(spec: &SandboxSpec) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else { return Map::new() };
    if let Some(Value::Object(network)) = fields.remove("network") {
        let others =
            network.into_iter().filter(|(name, _)| name != "allowOut" && name != "denyOut");
        fields.extend(others.map(|(name, value)| (format!("network.{name}"), value)));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_json;

    fn spec(fields: &str) -> SandboxSpec {
        let text = format!(
            r#"{{"sandboxID":"web","interface":"tap0","addresses":["10.11.0.2"],{fields}}}"#
        );
        parse_json(text.as_bytes()).expect("a sandbox")
    }

    #[test]
    fn entries_and_fields_that_differ_are_named() {
        let before =
            spec(r#""network":{"allowOut":["a.example","b.example"],"denyOut":["0.0.0.0/0"]}"#);
        let after = spec(
            r#""mac":"02:fc:00:00:00:05","network":{"allowOut":["b.example","c.example"],
            "denyOut":["0.0.0.0/0","::/0"],"allowPublicTraffic":false}"#,
        );
        let diff = SpecDiff::between(Some(&before), &after);
        assert_eq!(diff.added, ["allowOut c.example", "denyOut ::/0"]);
        assert_eq!(diff.removed, ["allowOut a.example"]);
        let fields =
            [r#"mac: null → "02:fc:00:00:00:05""#, "network.allowPublicTraffic: null → false"];
        assert_eq!(diff.fields, fields);
        assert!(SpecDiff::between(Some(&after), &after).is_empty());
    }

    #[test]
    fn a_new_sandbox_has_its_entries_only() {
        let diff = SpecDiff::between(None, &spec(r#""network":{"denyOut":["203.0.113.0/24"]}"#));
        assert_eq!(diff.added, ["denyOut 203.0.113.0/24"]);
        assert!(diff.removed.is_empty() && diff.fields.is_empty());
    }

    #[test]
    fn order_and_secrets_count_and_secrets_are_not_shown() {
        let proxy = |password: &str| {
            spec(&format!(
                r#""network":{{"denyOut":["203.0.113.1","203.0.113.2"],"egressProxy":
                {{"address":"proxy.example:1080","username":"u","password":"{password}"}}}}"#
            ))
        };
        let mut after = proxy("other");
        after.network.deny_out.as_mut().expect("a list").reverse();
        let diff = SpecDiff::between(Some(&proxy("one")), &after);
        let fields =
            ["network.denyOut: the order of its entries", "network.egressProxy: its password"];
        assert_eq!(diff.fields, fields);
    }

    #[test]
    fn headers_are_shown_without_their_values() {
        let rules = |name: &str, value: &str| {
            spec(&format!(
                r#""network":{{"rules":{{"a.example":[{{"transform":{{"headers":
                {{"{name}":"{value}"}}}}}}]}}}}"#
            ))
        };
        let before = rules("X-Key", "hunter2");
        let values = SpecDiff::between(Some(&before), &rules("X-Key", "hunter3"));
        assert_eq!(values.fields, ["network.rules: values of headers"]);
        let names = SpecDiff::between(Some(&before), &rules("X-Other", "hunter2")).fields.join("");
        assert!(names.contains("X-Key") && names.contains("X-Other"), "{names}");
        assert!(!names.contains("hunter"), "{names}");
        assert!(SpecDiff::between(Some(&before), &before).is_empty());
    }
}
