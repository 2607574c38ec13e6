//! CORS headers (Fetch standard). Browsers require them before a script of another origin may read
//! a response of the gateway or send the traffic token.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderMap, HeaderValue},
};

/// How long a browser may cache a preflight response, in seconds. A sandbox may become public at
/// any time, and then its service handles CORS itself.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("60");
/// The headers that a preflight response depends on.
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);

/// Whether a request is a CORS preflight. Preflights never carry the token.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Allows whatever a preflight requests, since the request itself must present the token. It does
/// not allow credentials: with cookies, the pages of one sandbox could act as the user in another.
pub(super) fn preflight_response<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let response_headers = response.headers_mut();
    for (request_name, response_name) in [
        (header::ORIGIN, header::ACCESS_CONTROL_ALLOW_ORIGIN),
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        for value in request.headers().get_all(request_name) {
            response_headers.append(response_name.clone(), value.clone());
        }
    }
    response_headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
    response_headers.insert(header::VARY, PREFLIGHT_VARY);
    response
}

/// Lets scripts of an origin read a response.
pub(super) fn allow_origin(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preflight_is_allowed_without_credentials() {
        let request = Request::options("/")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "e2b-traffic-access-token,content-type")
            .body(())
            .expect("a request");
        assert!(is_preflight(&request));
        let response = preflight_response(&request);
        let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
        assert_eq!(response.status(), 204);
        assert_eq!(header("access-control-allow-origin"), "https://app.example");
        assert_eq!(header("access-control-allow-methods"), "PUT");
        let allowed = header("access-control-allow-headers");
        assert_eq!(allowed, "e2b-traffic-access-token,content-type");
        assert!(!response.headers().contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn other_requests_are_no_preflights() {
        let is = |method: &str, fields: &[(&str, &str)]| {
            let request = Request::builder().method(method);
            let request = fields.iter().fold(request, |it, (name, value)| it.header(*name, *value));
            is_preflight(&request.body(()).expect("a request"))
        };
        let (origin, method) = (("origin", "https://a"), ("access-control-request-method", "GET"));
        assert!(is("OPTIONS", &[origin, method]));
        assert!(!is("GET", &[origin, method]));
        assert!(!is("OPTIONS", &[origin]) && !is("OPTIONS", &[method]));
    }
}
