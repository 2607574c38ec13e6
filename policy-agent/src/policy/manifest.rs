//! The file of `apply`: one JSON object, an array of them, or JSON lines.

use std::collections::HashSet;

use super::{Invalid, SandboxSpec, json};

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
    let mut seen = HashSet::new();
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
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> String {
        format!(r#"{{"sandboxID":"{id}","interface":"tap0","addresses":["10.11.0.2"]}}"#)
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
        let bad = b.replace("tap0", "a/b");
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
}
