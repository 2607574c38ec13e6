//! Prints the effective configuration as TOML, with the whole floor and without secrets.

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use toml::{Table, Value};

use super::AgentConfig;
use crate::policy::DEFAULT_PLATFORM_DENY;

/// The replacement for a secret.
const REDACTED: &str = "(hidden)";
/// Words in the names of keys that hold secrets. A file path is not a secret.
const SECRET_WORDS: [&str; 4] = ["api_keys", "token", "password", "secret"];
/// Keys with such words that hold none: a section with paths, and a limit.
const PLAIN_KEYS: [&str; 2] = ["secrets", "max_secrets"];

/// A comment about behaviour that no key controls.
const HEADER_COMMENT: &str = "\
# The host's own addresses, in the network namespace of each sandbox's interface, are denied like
# platform_deny unless platform_allow holds them.
";

impl AgentConfig {
    /// The effective configuration as TOML: the keys that differ from their defaults, and the
    /// floor. With `defaults`, also the keys at their defaults, if they have a value.
    ///
    /// # Errors
    /// An entry of the floor is invalid.
    pub fn to_redacted_toml(&self, defaults: bool) -> Result<String> {
        let mut table = self.to_redacted_table()?;
        if !defaults {
            remove_defaults(&mut table, &Self::default().to_redacted_table()?);
        }
        let floor = self.floor()?;
        let lists = [
            ("platform_allow", &floor.allow),
            ("platform_deny", &floor.deny),
            ("platform_deny_add", &floor.deny_add),
        ];
        let dataplane = table.entry("dataplane").or_insert_with(|| Table::new().into());
        let dataplane = dataplane.as_table_mut().context("dataplane is no table")?;
        for (key, list) in lists {
            let list: Vec<Value> = list.iter().map(|net| net.to_string().into()).collect();
            dataplane.insert(key.to_owned(), list.into());
        }
        let text = toml::to_string_pretty(&table).context("the configuration is no TOML")?;
        let lines = text.lines().map(|line| format!("{}\n", annotate_entry(line)));
        Ok([HEADER_COMMENT.to_owned(), "\n".to_owned()].into_iter().chain(lines).collect())
    }

    /// The entries of the built-in `platform_deny` that the operator's lists do not cover
    /// completely.
    ///
    /// # Errors
    /// An entry of the floor is invalid.
    pub fn uncovered_denies(&self) -> Result<Vec<&'static str>> {
        let floor = self.floor()?;
        let nets = floor.deny.iter().chain(&*floor.deny_add);
        let denied = IpNet::aggregate(&nets.copied().collect());
        let covers_all = denied.iter().any(|net| net.prefix_len() == 0 && net.addr().is_ipv4());
        let is_open = |entry: &&str| {
            let net = entry.parse::<IpNet>().ok();
            net.is_some_and(|net| !covers_all && !denied.iter().any(|outer| outer.contains(&net)))
        };
        Ok(DEFAULT_PLATFORM_DENY.iter().map(|(entry, _)| *entry).filter(is_open).collect())
    }

    fn to_redacted_table(&self) -> Result<Table> {
        let mut table = Table::try_from(self).context("the configuration is no TOML")?;
        redact_table(&mut table);
        Ok(table)
    }
}

/// Whether the value of a key is a secret.
pub(super) fn is_secret_key(key: &str) -> bool {
    let has_secret_word = SECRET_WORDS.iter().any(|word| key.contains(word));
    key == "key" || (has_secret_word && !PLAIN_KEYS.contains(&key))
}

/// Replaces all secrets in a table.
fn redact_table(table: &mut Table) {
    for (key, value) in table {
        match value {
            value if is_secret_key(key) => redact_value(value),
            Value::Table(inner) => redact_table(inner),
            Value::Array(items) => {
                items.iter_mut().filter_map(Value::as_table_mut).for_each(redact_table)
            }
            _ => {}
        }
    }
}

fn redact_value(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact_value),
        Value::Table(inner) => inner.iter_mut().for_each(|(_, value)| redact_value(value)),
        value => *value = REDACTED.into(),
    }
}

/// Removes keys at their defaults, and tables that are then empty.
fn remove_defaults(table: &mut Table, defaults: &Table) {
    table.retain(|key, value| match (value, defaults.get(key)) {
        (Value::Table(inner), Some(Value::Table(defaults))) => {
            remove_defaults(inner, defaults);
            !inner.is_empty()
        }
        (value, Some(default)) => value != default,
        (_, None) => true,
    });
}

/// Adds the built-in list's reason to an entry of the floor.
fn annotate_entry(line: &str) -> String {
    let entry = line.trim().trim_end_matches(',').trim_matches('"');
    match DEFAULT_PLATFORM_DENY.iter().find(|(built_in, _)| *built_in == entry) {
        Some((_, reason)) => format!("{line:<26}# {reason}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMISED: &str = r#"
        state_dir = "/s"
        [api]
        listen = "127.0.0.1:3000"
        api_keys = ["aSecretKey", "another"]
        [[api.keys]]
        name = "ci"
        role = "sandboxes"
        key = "anotherToo"
        [dataplane]
        mode = "xdp"
        inbound = "any"
        platform_allow = ["10.0.0.53"]
        platform_deny_add = ["203.0.113.7/24"]
        [gateway]
        domain = "sandbox.example.com"
        tls_cert = "/c"
        tls_key = "/k"
        [[slots]]
        interface = "tap0"
        addresses = ["10.11.0.2"]
        mac = "02:fc:00:00:00:05"
        "#;

    fn rendered(text: &str, defaults: bool) -> String {
        AgentConfig::parse(text).expect(text).to_redacted_toml(defaults).expect(text)
    }

    #[test]
    fn the_whole_floor_is_shown_with_reasons() {
        for text in [rendered("", false), rendered("", true), rendered(CUSTOMISED, false)] {
            for (entry, reason) in DEFAULT_PLATFORM_DENY {
                let line = text.lines().find(|line| line.contains(&format!("\"{entry}\"")));
                assert!(line.is_some_and(|line| line.ends_with(reason)), "{entry}: {text}");
            }
        }
        let replaced = rendered("[dataplane]\nplatform_deny = [\"10.1.2.3/8\"]", false);
        assert!(replaced.contains("10.0.0.0/8") && !replaced.contains("169.254.0.0"), "{replaced}");
    }

    #[test]
    fn no_secret_is_shown() {
        for defaults in [true, false] {
            let text = rendered(CUSTOMISED, defaults);
            assert!(!text.contains("aSecretKey") && !text.contains("another"), "{text}");
            assert!(text.contains(REDACTED), "{text}");
        }
        let debug = format!("{:?}", AgentConfig::parse(CUSTOMISED).expect(CUSTOMISED));
        assert!(!debug.contains("aSecretKey") && !debug.contains("another"), "{debug}");
        let mut table: Table =
            "[metrics]\ntoken = \"x\"\n[[a]]\npassword = \"x\"".parse().expect("TOML");
        redact_table(&mut table);
        assert!(!toml::to_string(&table).expect("TOML").contains("\"x\""));
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for defaults in [true, false] {
            let text = rendered(CUSTOMISED, defaults);
            let again = AgentConfig::parse(&text).expect(&text);
            assert_eq!(again.to_redacted_toml(defaults).expect("TOML"), text);
            assert_eq!(text.contains("default_nameserver"), defaults, "{text}");
            for key in ["/s", "xdp", "203.0.113.0/24", "10.0.0.53/32", "tap0", "02:fc"] {
                assert!(text.contains(key), "{key}: {text}");
            }
        }
    }

    #[test]
    fn what_a_replaced_list_leaves_open_is_named() {
        let open =
            |text: &str| AgentConfig::parse(text).expect(text).uncovered_denies().expect(text);
        assert!(open("").is_empty());
        assert!(open("[dataplane]\nplatform_deny = [\"0.0.0.0/0\"]").is_empty());
        let some = open(
            "[dataplane]\nplatform_deny = [\"10.0.0.0/9\", \"10.128.0.0/9\"]\n\
             platform_deny_add = [\"168.0.0.0/6\"]",
        );
        assert_eq!(some.len(), DEFAULT_PLATFORM_DENY.len() - 3, "{some:?}");
        assert!(some.contains(&"127.0.0.0/8") && !some.contains(&"169.254.0.0/16"), "{some:?}");
    }
}
