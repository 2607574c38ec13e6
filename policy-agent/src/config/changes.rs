//! The differences between two configurations, and which of them take effect without a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::{AgentConfig, ApiConfig, DataplaneConfig, redact};

/// Maximum number of entries of a list that a change shows.
const MAX_SHOWN_ENTRIES: usize = 10;

/// A key that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// The key in the form `section.key`.
    pub key: String,
    /// Whether it takes effect without a restart.
    pub is_live: bool,
    /// The difference, without secrets.
    difference: String,
}

/// `key: difference`.
impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.difference)
    }
}

impl AgentConfig {
    /// This configuration with those keys of another one that take effect without a restart.
    #[must_use]
    pub fn with_live_keys_of(&self, new: &Self) -> Self {
        // Without its token, a listener that stays would be open to everybody.
        let metrics = if self.metrics.listen == new.metrics.listen { new } else { self };
        Self {
            default_nameserver: new.default_nameserver,
            api: ApiConfig { listen: self.api.listen, ui: self.api.ui, ..new.api.clone() },
            metrics: metrics.metrics.clone(),
            rules: self.rules.with_live_keys_of(&new.rules),
            dataplane: DataplaneConfig {
                platform_allow: new.dataplane.platform_allow.clone(),
                platform_deny: new.dataplane.platform_deny.clone(),
                platform_deny_add: new.dataplane.platform_deny_add.clone(),
                ..self.dataplane.clone()
            },
            ..self.clone()
        }
    }

    /// The keys that differ in another configuration.
    ///
    /// # Errors
    /// A configuration has no TOML form.
    pub fn changes_to(&self, new: &Self) -> Result<Vec<ConfigChange>> {
        let live = flat_values(&self.with_live_keys_of(new))?;
        let (before, after) = (flat_values(self)?, flat_values(new)?);
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
        Ok(changed
            .map(|key| ConfigChange {
                key: key.clone(),
                is_live: live.get(key) == after.get(key),
                difference: describe_difference(key, before.get(key), after.get(key)),
            })
            .collect())
    }
}

/// The values by key, in the form `section.key`. Lists of tables are one value.
fn flat_values(config: &AgentConfig) -> Result<BTreeMap<String, Value>> {
    let table = Table::try_from(config).context("the configuration is no TOML")?;
    let mut flat = BTreeMap::new();
    for (section, value) in table {
        match value {
            Value::Table(inner) => flat
                .extend(inner.into_iter().map(|(key, value)| (format!("{section}.{key}"), value))),
            value => drop(flat.insert(section, value)),
        }
    }
    Ok(flat)
}

fn describe_difference(key: &str, before: Option<&Value>, after: Option<&Value>) -> String {
    let is_secret = key.split('.').any(redact::is_secret_key) || key == "api.keys";
    if is_secret {
        return "changed".to_owned();
    }
    let empty = Value::Array(Vec::new());
    let list = |value: Option<&Value>| value.unwrap_or(&empty).as_array().cloned();
    if let (Some(before), Some(after)) = (list(before), list(after)) {
        return describe_entries(&before, &after);
    }
    let shown = |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), Value::to_string);
    format!("{} is now {}", shown(before), shown(after))
}

/// The added entries of a list with `+`, and the removed ones with `-`.
fn describe_entries(before: &[Value], after: &[Value]) -> String {
    let missing_in = |one: &[Value], other: &[Value], sign: char| -> Vec<String> {
        let missing = one.iter().filter(|entry| !other.contains(entry));
        missing.map(|entry| format!("{sign}{}", entry.as_str().unwrap_or("entry"))).collect()
    };
    let all = [missing_in(after, before, '+'), missing_in(before, after, '-')].concat();
    if all.is_empty() {
        return "has another order".to_owned();
    }
    let more = all.len().saturating_sub(MAX_SHOWN_ENTRIES);
    let shown = all.iter().take(MAX_SHOWN_ENTRIES).cloned().collect::<Vec<_>>().join(" ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> AgentConfig {
        AgentConfig::parse(text).expect(text)
    }

    /// The changes from one text to another.
    fn changes(before: &str, after: &str) -> Vec<(String, bool)> {
        let changes = config(before).changes_to(&config(after)).expect("TOML");
        changes.iter().map(|change| (change.to_string(), change.is_live)).collect()
    }

    #[test]
    fn every_change_is_told_and_whether_it_needs_a_restart() {
        let before = "[dataplane]\nplatform_deny_add = [\"203.0.113.0/24\", \"192.0.2.0/24\"]";
        let after = "state_dir = \"/s\"\n[dataplane]\nmode = \"xdp\"\n\
                     platform_deny_add = [\"192.0.2.0/24\", \"198.51.100.0/24\"]";
        let expected = [
            ("dataplane.mode: \"tc\" is now \"xdp\"", false),
            ("dataplane.platform_deny_add: +198.51.100.0/24 -203.0.113.0/24", true),
            ("state_dir: \"/var/lib/policy-agent\" is now \"/s\"", false),
        ];
        assert_eq!(changes(before, after), expected.map(|(text, live)| (text.to_owned(), live)));
        assert_eq!(changes(after, after), []);
        let replaced = changes("", "[dataplane]\nplatform_deny = [\"10.0.0.0/8\"]");
        assert_eq!(replaced, [("dataplane.platform_deny: +10.0.0.0/8".to_owned(), true)]);
    }

    #[test]
    fn secrets_are_not_told() {
        let before =
            "[api]\napi_keys = [\"s3cret\"]\n[metrics]\nlisten = \"127.0.0.1:1\"\ntoken = \"s3\"";
        let after = "[[api.keys]]\nname = \"a\"\nrole = \"read\"\nkey = \"s3cret\"\n\
                     [metrics]\nlisten = \"127.0.0.1:1\"\ntoken = \"s4\"";
        for (text, live) in changes(before, after) {
            assert!(live && text.ends_with(": changed") && !text.contains("s3"), "{text}");
        }
    }

    #[test]
    fn a_listener_that_stays_keeps_its_token() {
        let before = config("[metrics]\nlisten = \"127.0.0.1:1\"\ntoken = \"t\"");
        let merged = before.with_live_keys_of(&config(""));
        assert_eq!(merged.metrics.token.as_deref(), Some("t"));
        let changes = before.changes_to(&config("")).expect("TOML");
        assert!(changes.iter().all(|change| !change.is_live), "{changes:?}");
    }
}
