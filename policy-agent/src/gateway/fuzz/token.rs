//! The traffic token is found in its three places, whatever stands around it, and leaves them.

use hyper::{Request, header::HeaderName};
use proptest::prelude::*;

use super::super::token::{NAME, Shown};
use crate::{
    fuzz::{few, hostile},
    policy::Secret,
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

const FIELDS: [&str; 4] = [NAME, "cookie", "referer", "x-other"];

type Fields = Vec<(&'static str, Vec<u8>)>;

fn request(uri: &[u8], fields: &Fields) -> Option<Request<()>> {
    let mut request = Request::builder().uri(uri);
    for (name, value) in fields {
        request = request.header(HeaderName::from_static(name), value.as_slice());
    }
    request.body(()).ok()
}

fn fields() -> impl Strategy<Value = Fields> {
    prop::collection::vec((prop::sample::select(&FIELDS[..]), hostile(&PIECES, 6)), 0..4)
}

/// Whether this is a field in which it is looked for, or the query.
fn names_it(text: &[u8]) -> bool {
    text.windows(NAME.len()).any(|window| window == NAME.as_bytes())
}

proptest! {
    #![proptest_config(few(512))]

    #[test]
    fn no_service_sees_the_token_under_its_name(query in hostile(&PIECES, 8), fields in fields()) {
        let Some(mut request) = request(&[b"/p?", &query[..]].concat(), &fields) else {
            return Ok(());
        };
        Shown::take(&mut request);
        prop_assert_eq!(request.uri().path(), "/p");
        // A name that only ends like it, or is a value, is somebody else's.
        let pairs = request.uri().query().unwrap_or_default().split('&');
        for pair in pairs {
            prop_assert!(pair.split('=').next() != Some(NAME), "{request:?}");
        }
        for name in ["cookie", "referer", NAME] {
            for value in request.headers().get_all(name) {
                prop_assert!(!names_it(value.as_bytes()) || name == "cookie", "{request:?}");
                for pair in value.as_bytes().split(|byte| *byte == b';') {
                    prop_assert!(!pair.trim_ascii().starts_with(NAME.as_bytes()), "{request:?}");
                }
            }
        }
    }

    #[test]
    fn the_token_is_found_beside_anything(
        place in 0..3,
        before in hostile(&PIECES, 4),
        behind in hostile(&PIECES, 4),
        mut fields in fields(),
    ) {
        let pair = format!("{NAME}={TOKEN}").into_bytes();
        let mut uri = b"/p".to_vec();
        match place {
            0 => uri = [b"/p?", &before[..], b"&", &pair, b"&", &behind].concat(),
            1 => fields.push(("cookie", [&before[..], b"; ", &pair, b"; ", &behind].concat())),
            _ => fields.push((NAME, TOKEN.into())),
        }
        let Some(mut request) = request(&uri, &fields) else { return Ok(()) };
        // A fragment is no part of a request, and cookies that are no text are not read.
        let is_cut = place == 0 && before.contains(&b'#');
        let is_text = place != 1 || [before, behind].concat().iter().all(|byte| byte.is_ascii());
        if is_cut || !is_text {
            return Ok(());
        }
        let shown = Shown::take(&mut request);
        prop_assert!(shown.proves(&Secret::new(TOKEN.to_owned())), "{uri:?} {fields:?}");
        prop_assert!(!shown.proves(&Secret::new(TOKEN.to_lowercase())));
    }

    #[test]
    fn a_wrong_token_proves_nothing(query in "[a-z=&;]{0,20}", shown in "[ -~]{0,30}") {
        let fields = vec![(NAME, shown.clone().into_bytes()), ("cookie", query.clone().into_bytes())];
        let Some(mut request) = request(format!("/?{query}").as_bytes(), &fields) else {
            return Ok(());
        };
        let proves = Shown::take(&mut request).proves(&Secret::new(TOKEN.to_owned()));
        prop_assert_eq!(proves, shown == TOKEN);
    }
}
