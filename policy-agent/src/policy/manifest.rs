//! The file of `apply`: one JSON object, an array of them, or JSON lines.

use std::collections::HashSet;

use super::{
    Invalid, SandboxSpec,
    conflict::{self, Claims},
    json,
};

/// Reads and checks all sandboxes in `text`, in their order.
///
/// # Errors
/// Names the field, after the sandbox's place in the file where there are several: `[2].mac`.
pub fn read(text: &str) -> Result<Vec<SandboxSpec>, Invalid> {
    let sandboxes = if text.trim_start().starts_with('[') {
        json::parse(text.as_bytes())?
    } else {
        lines(text)?
    };
    if sandboxes.is_empty() {
        return Err(Invalid::field("", "no sandbox in it; write a JSON object"));
    }
    check(&sandboxes)?;
    Ok(sandboxes)
}

fn lines(text: &str) -> Result<Vec<SandboxSpec>, Invalid> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut sandboxes = Vec::new();
    while deserializer.end().is_err() {
        let sandbox = json::next(&mut deserializer);
        sandboxes.push(sandbox.map_err(|error| match sandboxes.len() {
            0 => error,
            place => error.within(&format!("[{place}]")),
        })?);
    }
    Ok(sandboxes)
}

fn check(sandboxes: &[SandboxSpec]) -> Result<(), Invalid> {
    let (mut seen, mut claims) = (HashSet::new(), Claims::default());
    for (place, sandbox) in sandboxes.iter().enumerate() {
        let prefix = if sandboxes.len() == 1 { String::new() } else { format!("[{place}]") };
        sandbox.validate().map_err(|error| error.within(&prefix))?;
        if !seen.insert(&sandbox.sandbox_id) {
            let id = sandbox.sandbox_id.as_str();
            return Err(Invalid::entry(
                "sandboxID",
                id,
                "another sandbox in this file has this ID",
            )
            .within(&prefix));
        }
        conflict::check(&mut claims, sandbox).map_err(|error| error.within(&prefix))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sandbox with an interface and an address of its own.
    fn sandbox(id: &str) -> String {
        let number = id.bytes().next().unwrap_or_default();
        with(id, &format!("tap{id}"), "null", &format!("10.11.0.{number}"))
    }

    fn with(id: &str, interface: &str, netns: &str, address: &str) -> String {
        format!(
            r#"{{"sandboxID":"{id}","interface":"{interface}","netns":{netns},"addresses":["{address}"]}}"#
        )
    }

    #[test]
    fn one_object_an_array_or_lines() {
        let (a, b) = (sandbox("a"), sandbox("b"));
        for (text, ids) in [
            (a.clone(), &["a"][..]),
            (format!("\n  {a}\n\n"), &["a"]),
            (format!("[{a}]"), &["a"]),
            (format!(" [{a},\n{b}] "), &["a", "b"]),
            (format!("{a}\n{b}\n"), &["a", "b"]),
            (format!("{a}\r\n\r\n{b}"), &["a", "b"]),
        ] {
            let read = read(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let read: Vec<_> = read.iter().map(|sandbox| sandbox.sandbox_id.as_str()).collect();
            assert_eq!(read, ids, "{text}");
        }
    }

    #[test]
    fn errors_name_the_sandbox_and_the_field() {
        let (a, b) = (sandbox("a"), sandbox("b"));
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
            let error = read(&text).expect_err(&text).to_string();
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
            // As hosts of microVMs have them: everything is the same, but the namespace.
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
            // Each link has such addresses of its own.
            (("tap0", "null", "fe80::2"), ("tap1", "null", "fe80::2"), ""),
        ] {
            let text = [with("a", a.0, a.1, a.2), with("b", b.0, b.1, b.2)].join("\n");
            let said = read(&text).err().map(|error| error.to_string()).unwrap_or_default();
            let right =
                if problem.is_empty() { said.is_empty() } else { said.starts_with(problem) };
            assert!(right, "{text}: {said}");
        }
    }
}
