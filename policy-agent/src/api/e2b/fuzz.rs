//! Property tests of the parsers for E2B requests.

use proptest::prelude::*;

use super::{
    create_sandbox::E2bCreateBody,
    cursor::PageCursor,
    list_query::ListQuery,
    secrets::{E2bNewSecret, E2bSecretUpdate},
    timeouts::{E2bConnectBody, E2bRefreshBody, E2bTimeoutBody},
};
use crate::{
    api::ApiKeys,
    config::{ApiKeyConfig, ApiRole},
    fuzz::{cases_or, hostile_bytes, mutated_bytes},
    policy::{ValidationError, parse_json},
};

const VALID_BODY: &str = r#"{"templateID":"base","timeout":300,"secure":true,"autoPause":false,
"allow_internet_access":false,"metadata":{"a":"b"},"envVars":{"A":"B"},
"network":{"allowOut":["1.1.1.1"],"denyOut":["0.0.0.0/0"],"allowPublicTraffic":false}}"#;

const VALID_SECRET: &str = r#"{"name":"example","value":"a","metadata":{"owner":"web"}}"#;

const QUERY_PIECES: [&str; 24] = [
    "metadata=",
    "state=",
    "order=",
    "startedAfter=",
    "template=",
    "limit=",
    "nextToken=",
    "running",
    "paused",
    ",",
    "asc",
    "2026-11-25T10:00:00Z",
    "-009999-01-01T00:00:00Z",
    "_web",
    "_",
    "&",
    "=",
    "%25",
    "%",
    "%ff",
    "+",
    "18446744073709551616",
    "7",
    "-1",
];

fn check_error_message<T>(parsed: Result<T, ValidationError>) -> Result<(), TestCaseError> {
    let Err(error) = parsed else { return Ok(()) };
    let message = error.to_string();
    prop_assert!(
        !error.field.is_empty()
            || message.starts_with("not valid JSON")
            || message.starts_with("must be an object"),
        "{message}"
    );
    prop_assert!(!message.chars().any(char::is_control), "{message:?}");
    prop_assert!(message.len() < 2000, "{message}");
    Ok(())
}

proptest! {
    #![proptest_config(cases_or(256))]

    #[test]
    fn a_query_is_read_or_told(text in hostile_bytes(&QUERY_PIECES, 10)) {
        let text = String::from_utf8_lossy(&text);
        if let Ok(query) = ListQuery::parse(&text) {
            prop_assert!((1..=100).contains(&query.limit));
        }
        check_error_message(ListQuery::parse(&text))?;
        if let Ok(cursor) = text.parse::<PageCursor>() {
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn a_creation_is_read_or_told(text in mutated_bytes(VALID_BODY)) {
        check_error_message(parse_json::<E2bCreateBody>(&text))?;
        check_error_message(parse_json::<E2bConnectBody>(&text))?;
        check_error_message(parse_json::<E2bTimeoutBody>(&text))?;
        check_error_message(parse_json::<E2bRefreshBody>(&text))?;
    }

    #[test]
    fn a_secret_is_read_or_told(text in mutated_bytes(VALID_SECRET)) {
        check_error_message(parse_json::<E2bNewSecret>(&text))?;
        check_error_message(parse_json::<E2bSecretUpdate>(&text))?;
    }

    #[test]
    fn only_a_key_is_a_key(
        keys in prop::collection::vec("[a-c]{0,3}", 0..4),
        given in prop::collection::vec(b'a'..=b'd', 0..4),
    ) {
        let named = |key: &String| ApiKeyConfig {
            name: String::new(),
            role: ApiRole::Admin,
            key: key.clone(),
        };
        let named: Vec<_> = keys.iter().map(named).collect();
        let is_known = keys.iter().any(|key| key.as_bytes() == given);
        prop_assert_eq!(ApiKeys::new(&named).accepts(&given), is_known);
    }
}
