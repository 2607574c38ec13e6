//! Turns a request that was rewritten for HTTP/1 into one for an HTTP/2 service (RFC 9113, 8).

use hyper::{
    Request, Uri, Version,
    header::{self, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
};

use super::backend::BackendError;
use crate::net::hop_by_hop::list_members;

/// Moves the host into the target, and removes the fields that only HTTP/1 has.
///
/// # Errors
/// The host cannot be the authority of a target.
pub(super) fn into_http2<B>(
    mut request: Request<B>,
    is_tls: bool,
) -> Result<Request<B>, BackendError> {
    let host = request.headers_mut().remove(header::HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(host.ok_or(BackendError::InvalidHost)?);
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| BackendError::InvalidHost)?;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    let wants_trailers =
        list_members(headers, header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    headers.remove(header::TE);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    for name in [header::CONNECTION, header::EXPECT, header::UPGRADE, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_becomes_the_authority_and_fields_of_http1_go() {
        let request = Request::post("/a?b=c")
            .header("host", "3000-a.example.com:8080")
            .header("te", "gzip, trailers")
            .header("transfer-encoding", "chunked")
            .header("x", "y")
            .body(())
            .expect("a request");
        let request = into_http2(request, false).expect("a request");
        assert_eq!(request.uri(), "http://3000-a.example.com:8080/a?b=c");
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!(
            (names, &request.headers()["te"]),
            (vec!["x", "te"], &"trailers".parse().expect("a value"))
        );
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        for host in ["", "a b", "a/b"] {
            let request = Request::get("/").header("host", host).body(()).expect("a request");
            assert!(into_http2(request, true).is_err(), "{host:?}");
        }
    }
}
