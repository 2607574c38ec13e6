//! What stands in E2B's requests, as hostile as chance makes it.

use proptest::prelude::*;

use super::{
    create::NewSandbox,
    lease::{Connect, Refresh, Timeout},
    page::Place,
    query::Query,
};
use crate::{
    api::Keys,
    fuzz::{few, hostile, mutated},
    policy::{Invalid, parse},
};

const GOOD: &str = r#"{"templateID":"base","timeout":300,"secure":true,"autoPause":false,
"allow_internet_access":false,"metadata":{"a":"b"},"envVars":{"A":"B"},
"network":{"allowOut":["1.1.1.1"],"denyOut":["0.0.0.0/0"],"allowPublicTraffic":false}}"#;

const PIECES: [&str; 24] = [
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

fn is_told<T>(read: Result<T, Invalid>) -> Result<(), TestCaseError> {
    let Err(error) = read else { return Ok(()) };
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
    #![proptest_config(few(256))]

    #[test]
    fn a_query_is_read_or_told(text in hostile(&PIECES, 10)) {
        let text = String::from_utf8_lossy(&text);
        if let Ok(query) = Query::parse(&text) {
            prop_assert!((1..=100).contains(&query.limit));
        }
        is_told(Query::parse(&text))?;
        if let Ok(place) = text.parse::<Place>() {
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }
    }

    #[test]
    fn a_creation_is_read_or_told(text in mutated(GOOD)) {
        is_told(parse::<NewSandbox>(&text))?;
        is_told(parse::<Connect>(&text))?;
        is_told(parse::<Timeout>(&text))?;
        is_told(parse::<Refresh>(&text))?;
    }

    #[test]
    fn only_a_key_is_a_key(
        keys in prop::collection::vec("[a-c]{0,3}", 0..4),
        given in prop::collection::vec(b'a'..=b'd', 0..4),
    ) {
        let known = keys.iter().any(|key| key.as_bytes() == given);
        prop_assert_eq!(Keys::new(&keys).accept(&given), known);
    }
}
