//! Handles a browser that opens a private URL with the token in its query. Requests for the page's
//! resources do not carry that query. So the browser receives the token as a cookie and a redirect
//! to the URL without it.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Bytes,
    header::{self, HeaderMap, HeaderValue},
};

use super::{client_listener::UrlScheme, traffic_token};
use crate::{net::hop_by_hop::header_str, policy::SecretString};

/// Whether a request opens a page in a context where the browser keeps the cookie.
pub(super) fn is_page_navigation<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let opens_page = match header_str(headers, "sec-fetch-mode") {
        "" => header_str(headers, "accept").contains("text/html"),
        mode => mode == "navigate",
    };
    request.method() == Method::GET && opens_page && !is_cross_site_frame(headers)
}

/// Cross-site frames get no `SameSite=Lax` cookies, so they are not redirected.
fn is_cross_site_frame(headers: &HeaderMap) -> bool {
    matches!(header_str(headers, "sec-fetch-dest"), "iframe" | "frame" | "embed" | "object")
        && header_str(headers, "sec-fetch-site") == "cross-site"
}

/// Redirects to a target and sets the token as a cookie for this host only. `None` if token or
/// target cannot be encoded in a header field.
pub(super) fn token_redirect(
    target: &Uri,
    token: &SecretString,
    scheme: UrlScheme,
) -> Option<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, same_host_location(target).try_into().ok()?);
    let secure = if scheme == UrlScheme::Https { "; Secure" } else { "" };
    let cookie = format!(
        "{}={}; Path=/; HttpOnly; SameSite=Lax{secure}",
        traffic_token::TOKEN_NAME,
        token.reveal()
    );
    let mut cookie = HeaderValue::try_from(cookie).ok()?;
    cookie.set_sensitive(true);
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

/// A reference to a path and query on the same host. Two leading slashes (or what browsers treat as
/// such) would start another host's name. After a dot segment they start a path.
fn same_host_location(target: &Uri) -> String {
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    let names_host = target.get(1..2).is_some_and(|second| matches!(second, "/" | "\\"));
    if names_host { format!("/.{target}") } else { target.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: (&str, &str) = ("accept", "text/html,*/*;q=0.8");

    fn is_navigation(method: &str, fields: &[(&str, &str)]) -> bool {
        let request = Request::builder().method(method);
        let request = fields.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        is_page_navigation(&request.body(()).expect("a request"))
    }

    #[test]
    fn pages_are_opened_and_other_things_loaded() {
        let mode = |mode| ("sec-fetch-mode", mode);
        assert!(is_navigation("GET", &[PAGE]) && is_navigation("GET", &[mode("navigate")]));
        assert!(is_navigation("GET", &[PAGE, mode("navigate"), ("sec-fetch-dest", "document")]));
        assert!(!is_navigation("GET", &[]) && !is_navigation("GET", &[("accept", "*/*")]));
        assert!(!is_navigation("POST", &[PAGE, mode("navigate")]));
        for other in ["cors", "no-cors", "same-origin", "websocket"] {
            assert!(!is_navigation("GET", &[PAGE, mode(other)]), "{other}");
        }
        let frame = [mode("navigate"), ("sec-fetch-dest", "iframe")];
        assert!(!is_navigation("GET", &[&frame[..], &[("sec-fetch-site", "cross-site")]].concat()));
        assert!(is_navigation("GET", &[&frame[..], &[("sec-fetch-site", "same-origin")]].concat()));
    }

    #[test]
    fn the_cookie_is_for_this_host_and_not_for_scripts() {
        let redirect = |scheme| {
            let token = SecretString::new("t0k".to_owned());
            token_redirect(&"/a?b=1".parse().expect("a target"), &token, scheme).expect("an answer")
        };
        let cookie = "e2b-traffic-access-token=t0k; Path=/; HttpOnly; SameSite=Lax";
        let response = redirect(UrlScheme::Http);
        assert_eq!(
            (response.status(), &response.headers()["location"]),
            (303.try_into().unwrap(), &"/a?b=1".parse::<HeaderValue>().unwrap())
        );
        assert_eq!(response.headers()["set-cookie"], cookie);
        let response = redirect(UrlScheme::Https);
        assert_eq!(response.headers()["set-cookie"], format!("{cookie}; Secure"));
        assert!(!format!("{response:?}").contains("t0k"));
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
            assert_eq!(same_host_location(&target.parse().expect("a target")), expected);
        }
    }
}
