//! The traffic token is found in its three places, whatever surrounds it, and removed from them.

use hyper::{Request, header::HeaderName};
use proptest::prelude::*;

use super::super::traffic_token::{PresentedTokens, TOKEN_NAME};
use crate::{
    fuzz::{cases_or, hostile_bytes},
    policy::SecretString,
};

const TOKEN: &str = "t0kenOfTheSandbox";

const PIECES: [&str; 24] = [
    "e2b-traffic-access-token",
    "E2B-Traffic-Access-Token",
    "e2b-traffic-access-token=t0kenOfTheSandbox",
    "e2b-traffic-access-token=t0kenOfTheSandbo",
    "e2b-traffic-access-token = t0kenOfTheSandbox",
    "t0kenOfTheSandbox",
    "=",
    "==",
    "&",
    "&&",
    ";",
    "; ",
    "?",
    "#",
    "/",
    "a",
    "b=1",
    "\"",
    "%3d",
    "%26",
    " ",
    "\t",
    "é",
    "http://h/",
];

const FIELDS: [&str; 5] = [TOKEN_NAME, "cookie", "referer", "proxy-authorization", "x-other"];

type HeaderFields = Vec<(&'static str, Vec<u8>)>;

fn request(uri: &[u8], fields: &HeaderFields) -> Option<Request<()>> {
    let mut request = Request::builder().uri(uri);
    for (name, value) in fields {
        request = request.header(HeaderName::from_static(name), value.as_slice());
    }
    request.body(()).ok()
}

fn fields() -> impl Strategy<Value = HeaderFields> {
    prop::collection::vec((prop::sample::select(&FIELDS[..]), hostile_bytes(&PIECES, 6)), 0..4)
}

/// Whether the text contains the name of the token.
fn contains_token_name(text: &[u8]) -> bool {
    text.windows(TOKEN_NAME.len()).any(|window| window == TOKEN_NAME.as_bytes())
}

proptest! {
    #![proptest_config(cases_or(512))]

    #[test]
    fn no_service_sees_the_token_under_its_name(query in hostile_bytes(&PIECES, 8), fields in fields()) {
        let Some(mut request) = request(&[b"/p?", &query[..]].concat(), &fields) else {
            return Ok(());
        };
        PresentedTokens::strip_from(&mut request);
        prop_assert_eq!(request.uri().path(), "/p");
        // Names that merely end with the token's name, and values, belong to the service.
        let pairs = request.uri().query().unwrap_or_default().split('&');
        for pair in pairs {
            prop_assert!(pair.split('=').next() != Some(TOKEN_NAME), "{request:?}");
        }
        for name in ["cookie", "referer", TOKEN_NAME] {
            for value in request.headers().get_all(name) {
                prop_assert!(!contains_token_name(value.as_bytes()) || name == "cookie", "{request:?}");
                for pair in value.as_bytes().split(|byte| *byte == b';') {
                    prop_assert!(!pair.trim_ascii().starts_with(TOKEN_NAME.as_bytes()), "{request:?}");
                }
            }
        }
    }

    #[test]
    fn the_token_is_found_beside_anything(
        location in 0..3,
        before in hostile_bytes(&PIECES, 4),
        after in hostile_bytes(&PIECES, 4),
        mut fields in fields(),
    ) {
        let pair = format!("{TOKEN_NAME}={TOKEN}").into_bytes();
        let mut uri = b"/p".to_vec();
        match location {
            0 => uri = [b"/p?", &before[..], b"&", &pair, b"&", &after].concat(),
            1 => fields.push(("cookie", [&before[..], b"; ", &pair, b"; ", &after].concat())),
            _ => fields.push((TOKEN_NAME, TOKEN.into())),
        }
        let Some(mut request) = request(&uri, &fields) else { return Ok(()) };
        // A fragment is not part of a request, and cookies that are not text are dropped.
        let is_cut = location == 0 && before.contains(&b'#');
        let is_text = location != 1 || [before, after].concat().iter().all(|byte| byte.is_ascii());
        if is_cut || !is_text {
            return Ok(());
        }
        let presented = PresentedTokens::strip_from(&mut request);
        prop_assert!(presented.contains(&SecretString::new(TOKEN.to_owned())), "{uri:?} {fields:?}");
        prop_assert!(!presented.contains(&SecretString::new(TOKEN.to_lowercase())));
    }

    #[test]
    fn a_wrong_token_matches_nothing(query in "[a-z=&;]{0,20}", presented in "[ -~]{0,30}") {
        let fields = vec![(TOKEN_NAME, presented.clone().into_bytes()), ("cookie", query.clone().into_bytes())];
        let Some(mut request) = request(format!("/?{query}").as_bytes(), &fields) else {
            return Ok(());
        };
        let accepted = PresentedTokens::strip_from(&mut request).contains(&SecretString::new(TOKEN.to_owned()));
        prop_assert_eq!(accepted, presented == TOKEN);
    }
}
