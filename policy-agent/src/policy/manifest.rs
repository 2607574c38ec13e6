//! Parses the file given to `apply`: one JSON object, an array of them, JSON lines, or YAML.

use std::collections::HashSet;

use serde::Deserialize as _;
use serde_json::Value;

use super::{
    SandboxSpec, ValidationError, json,
    sandbox_conflicts::{self, OwnershipIndex},
};

/// Parses and validates all sandboxes in `text`, in their order.
///
/// # Errors
/// A sandbox is invalid. The error contains the field, preceded by the sandbox's index if there are
/// several: `[2].mac`.
pub fn parse_manifest(text: &str) -> Result<Vec<SandboxSpec>, ValidationError> {
    let sandboxes = if text.trim_start().starts_with('[') {
        json::parse_json(text.as_bytes())?
    } else {
        parse_json_stream(text)?
    };
    if sandboxes.is_empty() {
        return Err(ValidationError::about_field("", "no sandbox in it; write a JSON object"));
    }
    check_sandboxes(&sandboxes)?;
    Ok(sandboxes)
}

/// Parses the same in YAML: documents that hold one sandbox, or a list of them.
///
/// # Errors
/// The text is no YAML, or like those of [`parse_manifest`].
pub fn parse_yaml_manifest(text: &str) -> Result<Vec<SandboxSpec>, ValidationError> {
    let mut items = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        // A mapping refuses a field that is given twice. As JSON, errors name fields as they always do.
        let yaml = serde_yaml_ng::Value::deserialize(document).map_err(|error| not_yaml(&error))?;
        match serde_json::to_value(yaml).map_err(|error| not_yaml(&error))? {
            Value::Null => {}
            Value::Array(sandboxes) => items.extend(sandboxes),
            sandbox => items.push(sandbox),
        }
    }
    let lines: Vec<_> = items.iter().map(Value::to_string).collect();
    parse_manifest(&lines.join("\n"))
}

fn not_yaml(error: &impl std::fmt::Display) -> ValidationError {
    ValidationError::about_field("", format!("not valid YAML: {error}"))
}

fn parse_json_stream(text: &str) -> Result<Vec<SandboxSpec>, ValidationError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut sandboxes = Vec::new();
    while deserializer.end().is_err() {
        let sandbox = json::parse_next_json(&mut deserializer);
        sandboxes.push(sandbox.map_err(|error| match sandboxes.len() {
            0 => error,
            place => error.with_field_prefix(&format!("[{place}]")),
        })?);
    }
    Ok(sandboxes)
}

fn check_sandboxes(sandboxes: &[SandboxSpec]) -> Result<(), ValidationError> {
    let (mut seen, mut claims) = (HashSet::new(), OwnershipIndex::default());
    for (place, sandbox) in sandboxes.iter().enumerate() {
        let prefix = if sandboxes.len() == 1 { String::new() } else { format!("[{place}]") };
        sandbox.validate().map_err(|error| error.with_field_prefix(&prefix))?;
        if !seen.insert(&sandbox.sandbox_id) {
            let id = sandbox.sandbox_id.as_str();
            return Err(ValidationError::about_entry(
                "sandboxID",
                id,
                "another sandbox in this file has this ID",
            )
            .with_field_prefix(&prefix));
        }
        sandbox_conflicts::check_conflicts(&mut claims, sandbox)
            .map_err(|error| error.with_field_prefix(&prefix))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sandbox with its own interface and address.
    fn sandbox_json(id: &str) -> String {
        let number = id.bytes().next().unwrap_or_default();
        sandbox_json_with(id, &format!("tap{id}"), "null", &format!("10.11.0.{number}"))
    }

    fn sandbox_json_with(id: &str, interface: &str, netns: &str, address: &str) -> String {
        format!(
            r#"{{"sandboxID":"{id}","interface":"{interface}","netns":{netns},"addresses":["{address}"]}}"#
        )
    }

    #[test]
    fn one_object_an_array_or_lines() {
        let (a, b) = (sandbox_json("a"), sandbox_json("b"));
        for (text, ids) in [
            (a.clone(), &["a"][..]),
            (format!("\n  {a}\n\n"), &["a"]),
            (format!("[{a}]"), &["a"]),
            (format!(" [{a},\n{b}] "), &["a", "b"]),
            (format!("{a}\n{b}\n"), &["a", "b"]),
            (format!("{a}\r\n\r\n{b}"), &["a", "b"]),
        ] {
            let read = parse_manifest(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let read: Vec<_> = read.iter().map(|sandbox| sandbox.sandbox_id.as_str()).collect();
            assert_eq!(read, ids, "{text}");
        }
    }

    #[test]
    fn yaml_means_what_the_same_json_means() {
        let yaml = "\
sandboxID: web
interface: tap0
addresses: [10.11.0.2, 'fd00::2']
mac: 02:fc:00:00:00:05
allowInternetAccess: false
network:
  allowOut:
    - '*.example.com'   # quoted, since * is an alias
    - 203.0.113.0/24
  httpsPorts: [8443]
";
        let json = r#"{"sandboxID":"web","interface":"tap0","addresses":["10.11.0.2","fd00::2"],
            "mac":"02:fc:00:00:00:05","allowInternetAccess":false,
            "network":{"allowOut":["*.example.com","203.0.113.0/24"],"httpsPorts":[8443]}}"#;
        let expected = parse_manifest(json).expect("JSON");
        assert_eq!(parse_yaml_manifest(yaml).expect("YAML"), expected);
        let listed: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
        let listed = format!("-{}", &listed[1..]);
        assert_eq!(parse_yaml_manifest(&listed).expect("a list"), expected);
        let two = format!("---\n{yaml}---\n{}", yaml.replace("web", "other"));
        assert!(
            parse_yaml_manifest(&two).expect_err("one interface").to_string().starts_with("[1].")
        );
    }

    #[test]
    fn wrong_yaml_is_refused() {
        for (text, problem) in [
            ("", "no sandbox in it"),
            ("sandboxID: [", "not valid YAML"),
            ("sandboxID: a\nsandboxID: b", "not valid YAML"),
            ("sandboxID: a\ninterfase: tap0", "interfase: unknown field"),
            ("just text", "not"),
        ] {
            let error = parse_yaml_manifest(text).expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn errors_name_the_sandbox_and_the_field() {
        let (a, b) = (sandbox_json("a"), sandbox_json("b"));
        let bad = b.replace("tapb", "a/b");
        let typo = b.replace("interface", "interfase");
        for (text, start) in [
            (String::new(), "no sandbox in it"),
            ("[]".to_owned(), "no sandbox in it"),
            ("{".to_owned(), "not valid JSON"),
            ("tap0".to_owned(), "not valid JSON"),
            (format!("[{a}] x"), "not valid JSON"),
            (bad.clone(), r#"interface: "a/b": "#),
            (format!("{a}\n{bad}"), r#"[1].interface: "a/b": "#),
            (format!("[{a},{bad}]"), r#"[1].interface: "a/b": "#),
            (format!("{a}\n{typo}"), "[1].interfase: unknown field"),
            (format!("[{a},{typo}]"), "[1].interfase: unknown field"),
            (format!("{a}\n{b}\n{a}"), r#"[2].sandboxID: "a": another sandbox"#),
        ] {
            let error = parse_manifest(&text).expect_err(&text).to_string();
            assert!(error.starts_with(start), "{text}: {error}");
        }
    }
    #[test]
    fn interfaces_and_addresses_have_one_sandbox() {
        for (a, b, problem) in [
            (("tap0", "null", "10.11.0.2"), ("tap1", "null", "10.11.0.3"), ""),
            (
                ("tap0", "null", "10.11.0.2"),
                ("tap0", "null", "10.11.0.3"),
                r#"[1].interface: "tap0": belongs to sandbox a"#,
            ),
            (
                ("tap0", "null", "10.11.0.2"),
                ("tap1", "null", "::ffff:10.11.0.2"),
                r#"[1].addresses[0]: "10.11.0.2": sandboxes a and b cannot both have it"#,
            ),
            // As on microVM hosts: everything but the namespace is equal.
            (
                ("tap0", r#""/run/netns/a""#, "10.11.0.2"),
                ("tap0", r#""/run/netns/b""#, "10.11.0.2"),
                "",
            ),
            (
                ("tap0", r#""/run/netns/a""#, "fd00::2"),
                ("tap1", r#""/run/netns/a""#, "fd00::2"),
                r#"[1].addresses[0]: "fd00::2": sandboxes a and b"#,
            ),
            // Link-local addresses are only unique per link.
            (("tap0", "null", "fe80::2"), ("tap1", "null", "fe80::2"), ""),
        ] {
            let text =
                [sandbox_json_with("a", a.0, a.1, a.2), sandbox_json_with("b", b.0, b.1, b.2)]
                    .join("\n");
            let said =
                parse_manifest(&text).err().map(|error| error.to_string()).unwrap_or_default();
            let right =
                if problem.is_empty() { said.is_empty() } else { said.starts_with(problem) };
            assert!(right, "{text}: {said}");
        }
    }
}
