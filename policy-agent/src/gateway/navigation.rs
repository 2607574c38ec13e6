//! A browser that opens a private URL with the token in its query. What the page loads has no query to
//! show it in, so the browser is given the token as a cookie, and led to the URL without it.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Bytes,
    header::{self, HeaderMap, HeaderValue},
};

use super::{listen::Scheme, token};
use crate::policy::Secret;

/// Whether a request opens a page, in a place where the browser would keep a cookie.
pub fn is_of<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let opens_page = match text(headers, "sec-fetch-mode") {
        "" => text(headers, "accept").contains("text/html"),
        mode => mode == "navigate",
    };
    request.method() == Method::GET && opens_page && !is_embedded(headers)
}

/// Pages inside pages of another site have no `SameSite=Lax` cookies, and stay as they are.
fn is_embedded(headers: &HeaderMap) -> bool {
    matches!(text(headers, "sec-fetch-dest"), "iframe" | "frame" | "embed" | "object")
        && text(headers, "sec-fetch-site") == "cross-site"
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Leads to a target with the token as a cookie for this host alone. `None`: it cannot stand in fields.
pub fn redirect(target: &Uri, token: &Secret, scheme: Scheme) -> Option<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location(target).try_into().ok()?);
    let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
    let cookie =
        format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", token::NAME, token.reveal());
    let mut cookie = HeaderValue::try_from(cookie).ok()?;
    cookie.set_sensitive(true);
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

/// A reference to a path and query of the same host. Two slashes in front (or what browsers take for
/// them) would begin another host's name; behind a dot segment they begin a path.
fn location(target: &Uri) -> String {
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    let names_host = target.get(1..2).is_some_and(|second| matches!(second, "/" | "\\"));
    if names_host { format!("/.{target}") } else { target.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: (&str, &str) = ("accept", "text/html,*/*;q=0.8");

    fn is(method: &str, fields: &[(&str, &str)]) -> bool {
        let request = Request::builder().method(method);
        let request = fields.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        is_of(&request.body(()).expect("a request"))
    }

    #[test]
    fn pages_are_opened_and_other_things_loaded() {
        let mode = |mode| ("sec-fetch-mode", mode);
        assert!(is("GET", &[PAGE]) && is("GET", &[mode("navigate")]));
        assert!(is("GET", &[PAGE, mode("navigate"), ("sec-fetch-dest", "document")]));
        assert!(!is("GET", &[]) && !is("GET", &[("accept", "*/*")]));
        assert!(!is("POST", &[PAGE, mode("navigate")]));
        for other in ["cors", "no-cors", "same-origin", "websocket"] {
            assert!(!is("GET", &[PAGE, mode(other)]), "{other}");
        }
        let frame = [mode("navigate"), ("sec-fetch-dest", "iframe")];
        assert!(!is("GET", &[&frame[..], &[("sec-fetch-site", "cross-site")]].concat()));
        assert!(is("GET", &[&frame[..], &[("sec-fetch-site", "same-origin")]].concat()));
    }

    #[test]
    fn the_cookie_is_for_this_host_and_not_for_scripts() {
        let redirect = |scheme| {
            let token = Secret::new("t0k".to_owned());
            redirect(&"/a?b=1".parse().expect("a target"), &token, scheme).expect("an answer")
        };
        let cookie = "e2b-traffic-access-token=t0k; Path=/; HttpOnly; SameSite=Lax";
        let answer = redirect(Scheme::Http);
        assert_eq!(
            (answer.status(), &answer.headers()["location"]),
            (303.try_into().unwrap(), &"/a?b=1".parse::<HeaderValue>().unwrap())
        );
        assert_eq!(answer.headers()["set-cookie"], cookie);
        let answer = redirect(Scheme::Https);
        assert_eq!(answer.headers()["set-cookie"], format!("{cookie}; Secure"));
        assert!(!format!("{answer:?}").contains("t0k"));
    }

    #[test]
    fn nobody_is_led_to_another_host() {
        for (target, expected) in [
            ("/", "/"),
            ("/?a=//b", "/?a=//b"),
            ("//evil.test/x", "/.//evil.test/x"),
            ("/\\evil.test", "/./\\evil.test"),
            ("http://1-a.example.com//evil.test", "/.//evil.test"),
        ] {
            assert_eq!(location(&target.parse().expect("a target")), expected);
        }
    }
}
