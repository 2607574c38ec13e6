//! Parses JSON, with errors that contain the field.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{ValidationError, closest_name};

/// Maximum number of characters of a field's name in an error.
const MAX_SHOWN_CHARS: usize = 80;

/// Parses JSON text with exactly one value.
///
/// # Errors
/// A field is unknown, missing, duplicated or of the wrong type. The error contains its path.
pub fn parse_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, ValidationError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = parse_next_json(&mut deserializer)?;
    deserializer
        .end()
        .map_err(|error| ValidationError::about_field("", format!("not valid JSON: {error}")))?;
    Ok(value)
}

/// Parses the next JSON value of a text that contains several.
pub(super) fn parse_next_json<'de, R, T>(
    deserializer: &mut serde_json::Deserializer<R>,
) -> Result<T, ValidationError>
where
    R: serde_json::de::Read<'de>,
    T: DeserializeOwned,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = match error.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        into_validation_error(&path, error.inner())
    })
}

fn into_validation_error(path: &str, error: &serde_json::Error) -> ValidationError {
    if error.classify() != Category::Data {
        return ValidationError::about_field("", format!("not valid JSON: {error}"));
    }
    let message = error.to_string();
    // The path identifies the field. Line and column are redundant, and meaningless in an API
    // response.
    let message = match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => &message,
    };
    field_error(path, message).unwrap_or_else(|| {
        ValidationError::about_field(display_path(path), plain_type_error(path, message))
    })
}

/// serde reports these three errors for the object, but users look for the field.
fn field_error(path: &str, message: &str) -> Option<ValidationError> {
    let (kind, rest) = message.split_once(" field `")?;
    // The name of an unknown field may contain anything, including quotes.
    let (field, known) = rest.split_once("`, ").or_else(|| rest.split_once('`'))?;
    let problem = match kind {
        "unknown" => unknown_field_problem(field, &canonical_spellings(known.split_once('`')?.1)),
        "missing" => "is missing".to_owned(),
        "duplicate" => "given twice (camelCase and snake_case spell the same field)".to_owned(),
        _ => return None,
    };
    let parent = path.strip_suffix(field).map_or(path, |path| path.trim_end_matches('.'));
    Some(
        ValidationError::about_field(display_field_name(field), problem)
            .with_field_prefix(&display_path(parent)),
    )
}

/// Returns a field's name unchanged if it could be a valid one, otherwise quoted and truncated.
fn display_field_name(field: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
    if (1..=MAX_SHOWN_CHARS).contains(&field.len()) && field.chars().all(plain) {
        return field.to_owned();
    }
    format!("{:?}", field.chars().take(MAX_SHOWN_CHARS).collect::<String>())
}

/// Escapes a path, which may contain names from the user: control characters must not reach a
/// terminal.
fn display_path(path: &str) -> String {
    path.chars().take(4 * MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect()
}

fn unknown_field_problem(field: &str, known: &[&str]) -> String {
    let listed = known.join(", ");
    // Bounds the length of the error and the time for the search.
    let meant = (field.len() <= MAX_SHOWN_CHARS)
        .then(|| closest_name(field, known.iter().copied()))
        .flatten();
    match meant {
        Some(meant) => format!("unknown field; did you mean {meant}? Known here: {listed}"),
        None => format!("unknown field; known here: {listed}"),
    }
}

/// The fields in serde's list with canonical spelling.
fn canonical_spellings(list: &str) -> Vec<&str> {
    let names = list.split('`').filter(|part| part.starts_with(char::is_alphanumeric));
    names.filter(|name| !name.contains('_')).collect()
}

/// Translates serde's message about a wrong type to JSON terms.
fn plain_type_error(path: &str, message: &str) -> String {
    let Some(wrong) = message.strip_prefix("invalid type: ") else {
        return message.to_owned();
    };
    let Some((found, expected)) = wrong.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let expected = expected.replace("a sequence", "a list").replace("a boolean", "true or false");
    let found = found.replace("sequence", "a list").replace("map", "an object");
    // A proxy given as a URL instead of an object may contain a password, and so may header rules.
    if ["egressProxy", "egress_proxy", "rules"].iter().any(|field| path.contains(field)) {
        return format!("must be {expected}");
    }
    format!("must be {expected}, not {found}")
}

#[cfg(test)]
mod tests {
    use super::super::{NetworkConfig, SandboxSpec};
    use super::*;

    /// Parses a sandbox with this `network`.
    fn parse_network_of_spec(network: &str) -> Result<NetworkConfig, ValidationError> {
        let text = format!(
            r#"{{"sandboxID":"a","interface":"tap0","addresses":["10.0.0.2"],"network":{network}}}"#
        );
        parse_json::<SandboxSpec>(text.as_bytes()).map(|sandbox| sandbox.network)
    }

    #[test]
    fn both_spellings_are_read() {
        let camel = parse_network_of_spec(
            r#"{"allowOut":["1.1.1.1"],"denyOut":[],"dnsServers":[],"egressProxy":{"address":"a:1"},
            "allowPublicTraffic":false,"maskRequestHost":"a","httpsPorts":[443],
            "allowInternetAccess":false}"#,
        );
        let snake = parse_network_of_spec(
            r#"{"allow_out":["1.1.1.1"],"deny_out":[],"dns_servers":[],"egress_proxy":{"address":"a:1"},
            "allow_public_traffic":false,"mask_request_host":"a","https_ports":[443],
            "allow_internet_access":false}"#,
        );
        assert_eq!(camel, snake);
        let camel = camel.expect("good");
        assert_eq!(camel.https_ports, Some(vec![443]));
        assert_eq!(camel.allow_internet_access, Some(false));
    }

    #[test]
    fn null_and_empty_are_absent() {
        for text in ["null", "{}", r#"{"allowOut":null,"egressProxy":null,"rules":null}"#] {
            assert_eq!(parse_network_of_spec(text), Ok(NetworkConfig::default()), "{text}");
        }
        for text in [r#"{"rules":{}}"#, r#"{"rules":[]}"#] {
            assert_eq!(parse_network_of_spec(text), Ok(NetworkConfig::default()), "{text}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (text, expected) in [
            ("[]", "network: must be an object, not a list"),
            ("\"x\"", "network: must be an object, not "),
            (
                r#"{"allowout":[]}"#,
                "network.allowout: unknown field; did you mean allowOut? Known here: allowOut, denyOut, dns",
            ),
            (r#"{"denyOut":[],"deny_out":[]}"#, "network.denyOut: given twice"),
            (r#"{"denyOut":[],"denyOut":[]}"#, "network.denyOut: given twice"),
            (r#"{"denyOut":"1.1.1.1"}"#, "network.denyOut: must be a list, not string"),
            (r#"{"deny_out":["1.1.1.1",7]}"#, "network.deny_out[1]: must be a string, not integer"),
            (r#"{"denyOut":[null]}"#, "network.denyOut[0]: must be a string, not null"),
            (r#"{"allowPublicTraffic":"no"}"#, "network.allowPublicTraffic: must be true or false"),
            (r#"{"httpsPorts":[443,0]}"#, "network.httpsPorts[1]: 0: a port is a number from 1"),
            (r#"{"httpsPorts":[65536]}"#, "network.httpsPorts[0]: 65536: a port is a number"),
            (r#"{"httpsPorts":["443"]}"#, "network.httpsPorts[0]: \"443\": a port is a number"),
            (r#"{"egressProxy":{}}"#, "network.egressProxy.address: is missing"),
            (
                r#"{"egressProxy":{"address":"a:1","user":"x"}}"#,
                "network.egressProxy.user: unknown",
            ),
            (r#"{"egressProxy":"u:hunter2@h:1"}"#, "network.egressProxy: must be an object"),
            (
                r#"{"egressProxy":{"address":"a:1","password":12345}}"#,
                "network.egressProxy.password: must be a string",
            ),
            (r#"{"rules":"hunter2"}"#, "network.rules: must be an object"),
            (r#"{"rules":["hunter2"]}"#, "network.rules: must be an object, not a list"),
            (r#"{"rules":{"a.b":{}}}"#, "network.rules.a.b: must be a list"),
            (r#"{"rules":{"a.b":[{"transforms":{}}]}}"#, "network.rules.a.b[0].transforms: unkn"),
            (r#"{"rules":{"a.b":[],"a.b":[]}}"#, "network.rules: holds a name twice"),
            (
                r#"{"rules":{"a.b":[{"transform":{"headers":{"X":"1","X":"hunter2"}}}]}}"#,
                "network.rules.a.b[0].transform.headers: holds a name twice",
            ),
            (
                r#"{"rules":{"a.b":[{"transform":{"headers":{"X":12345}}}]}}"#,
                "network.rules.a.b[0].transform.headers.X: must be a string",
            ),
            (
                r#"{"rules":{"a.b":[{"transform":{"headers":"hunter2"}}]}}"#,
                "network.rules.a.b[0].transform.headers: must be an object",
            ),
        ] {
            let error = parse_network_of_spec(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("12345"), "{text}: {error}");
            assert!(!error.contains(" at line "), "{text}: {error}");
        }
    }

    #[test]
    fn a_field_that_is_made_up_is_quoted() {
        for (name, expected) in [
            ("", "network.\"\": unknown field; known here: allowOut"),
            ("a`b", "network.\"a`b\": unknown field"),
            ("\\u001b[31m\\n", "network.\"\\u{1b}[31m\\n\": unknown field"),
        ] {
            let error =
                parse_network_of_spec(&format!("{{\"{name}\":1}}")).expect_err(name).to_string();
            assert!(error.starts_with(expected), "{name}: {error}");
        }
        let long = parse_network_of_spec(&format!("{{\"{}\":1}}", "a".repeat(1_000_000)))
            .expect_err("long");
        assert!(long.to_string().len() < 400);
    }

    #[test]
    fn a_sandbox_is_checked_as_a_whole() {
        for (text, expected) in [
            ("", "not valid JSON"),
            ("{}", "sandboxID: is missing"),
            ("{} {}", "sandboxID: is missing"),
            (r#"{"sandboxID":"A!"}"#, "sandboxID: \"A!\": an ID has 1 to 63"),
            (r#"{"sandboxID":"a","sandbox_id":"b"}"#, "sandboxID: given twice"),
            (
                r#"{"sandboxID":"a","interface":"t","addresses":["10.0.0.2/24"]}"#,
                "addresses[0]: \"10.0.0.2/24\": write an IP address, without",
            ),
            (
                r#"{"sandboxID":"a","interface":"t","addresses":[],"mac":"zz"}"#,
                "mac: \"zz\": write six hexadecimal bytes",
            ),
            (r#"{"sandboxID":"a","allowOut":[]}"#, "allowOut: unknown field"),
        ] {
            let error = parse_json::<SandboxSpec>(text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let good = br#"{"sandboxID":"a","interface":"t","addresses":["::ffff:10.0.0.2"]}"#;
        let sandbox: SandboxSpec = parse_json(good).expect("good");
        assert_eq!(sandbox.addresses, [std::net::IpAddr::from([10, 0, 0, 2])]);
        let trailing = [good.as_slice(), b" x"].concat();
        assert!(parse_json::<SandboxSpec>(&trailing).is_err());
    }
}
