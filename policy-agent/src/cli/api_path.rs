//! Paths of the API with what users write in them.

/// Escapes an ID for a URL path, or a value for a query. Characters that no ID can contain are
/// escaped too, so that the agent can reply that there is no such sandbox.
pub(super) fn escape_path_segment(id: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    id.bytes().map(escape).collect()
}

/// Appends those parameters that have a value to a path that has a query.
pub(super) fn append_parameters(path: &mut String, parameters: &[(&str, Option<&str>)]) {
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escape_path_segment(value)));
        }
    }
}
