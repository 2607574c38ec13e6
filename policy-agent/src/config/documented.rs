//! Checks the example file and `docs/configuration.md` against the code: both contain every key,
//! and every default is the code's.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{AgentConfig, GatewayConfig};
use crate::policy::DEFAULT_PLATFORM_DENY;

const EXAMPLE: &str = include_str!("../../../docs/policy-agent.example.toml");
const PAGE: &str = include_str!("../../../docs/configuration.md");

/// The old name of `interfaces`. The example omits it.
const OLD: &str = "slots";
/// A key that no section has. The error about it lists the keys that the section does have.
const UNKNOWN: &str = "such_a_key_is_nowhere";

/// The keys that the code knows in a section, taken from its own error. `None` if there is no such
/// section.
fn keys(section: &str) -> Option<Vec<String>> {
    let error = format!("{:#}", AgentConfig::parse(&format!("{section}\n{UNKNOWN} = 1")).err()?);
    let (_, known) = error.split_once(&format!("unknown field `{UNKNOWN}`, "))?;
    Some(known.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Every key in the form `section.key`.
fn all_keys() -> Vec<String> {
    let top = keys("").expect("keys at the top");
    let expand = |key: &String| {
        let inner = keys(&format!("[{key}]")).or_else(|| keys(&format!("[[{key}]]")));
        match inner {
            Some(inner) => inner.iter().map(|inner| format!("{key}.{inner}")).collect(),
            None => vec![key.clone()],
        }
    };
    let all: Vec<String> = top.iter().filter(|key| *key != OLD).flat_map(expand).collect();
    assert!(all.len() > top.len(), "sections were found: {all:?}");
    all
}

/// The defaults by key. An empty list counts as no default.
fn defaults() -> BTreeMap<String, Value> {
    let with_gateway =
        AgentConfig { gateway: Some(GatewayConfig::default()), ..AgentConfig::default() };
    let mut defaults = flat(&Table::try_from(&with_gateway).expect("TOML"));
    let built_in = DEFAULT_PLATFORM_DENY.iter().map(|(entry, _)| Value::from(*entry)).collect();
    defaults.insert("dataplane.platform_deny".to_owned(), Value::Array(built_in));
    defaults.insert("interfaces.force".to_owned(), Value::Boolean(false));
    defaults.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    defaults
}

/// Flattens a table to values by key, in the form `section.key`.
fn flat(table: &Table) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in table {
        let first_item = value.as_array().and_then(|list| list.first());
        match value.as_table().or_else(|| first_item.and_then(Value::as_table)) {
            Some(inner) => {
                flat.extend(
                    inner.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone())),
                );
            }
            None => drop(flat.insert(key.clone(), value.clone())),
        }
    }
    flat
}

/// The example with every setting uncommented.
fn turned_on() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(setting)
            if !setting.is_empty() && (!setting.starts_with(' ') || setting.starts_with("  ")) =>
        {
            format!("{setting}\n")
        }
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(uncomment).collect()
}

/// The rows of the page's table of keys: the key and the cells.
fn rows() -> BTreeMap<&'static str, Vec<&'static str>> {
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").map(str::trim).collect();
        Some((cells.first()?.trim_end_matches('`'), cells))
    };
    let section = PAGE.split("\n## ").find(|section| section.starts_with("Every key\n"));
    section.expect("the section \"Every key\"").lines().filter_map(row).collect()
}

#[test]
fn the_example_as_it_is_installed_changes_nothing() {
    let config = AgentConfig::parse(EXAMPLE).expect("a valid file");
    let text = |config: &AgentConfig| toml::to_string(config).expect("TOML");
    assert_eq!(text(&config), text(&AgentConfig::default()));
}

#[test]
fn the_example_has_every_key_and_shows_the_defaults() {
    let text = turned_on();
    AgentConfig::parse(&text).expect("valid with every setting turned on");
    let example = flat(&text.parse().expect("TOML"));
    let shown: Vec<&String> = example.keys().collect();
    let mut known = all_keys();
    known.sort();
    assert_eq!(shown, known.iter().collect::<Vec<_>>());
    for (key, default) in defaults() {
        assert_eq!(example.get(&key), Some(&default), "{key}");
    }
}

#[test]
fn the_page_has_every_key_and_its_default() {
    let (rows, defaults) = (rows(), defaults());
    let mut known = all_keys();
    known.sort();
    let described: Vec<&str> = rows.keys().copied().collect();
    assert_eq!(described, known);
    for (key, cells) in rows {
        let shown = match defaults.get(key) {
            Some(Value::Array(_)) => "the built-in list".to_owned(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
            None => "none".to_owned(),
        };
        let default = cells.get(2).copied().unwrap_or_default();
        let required = key.starts_with("interfaces.") && default == "required";
        assert!(default == shown || required, "{key}: {default}, and not {shown}");
    }
    assert!(PAGE.contains(OLD), "the old name is described");
}
