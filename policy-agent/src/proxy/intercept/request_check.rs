//! Checks that a request is for the name of its connection, so that headers never go to another.

use hyper::{Method, Request, Version, ext::Protocol, header, http::uri::Scheme};
use policy_common::reason::Reason;

use crate::{
    net::hop_by_hop::has_unambiguous_framing,
    policy::DomainName,
    proxy::http::request_host::{parse_host_header, split_host_port},
};

/// Checks a request in a connection to `name`.
///
/// # Errors
/// The request is for another host, or cannot be judged.
pub(super) fn check_request<B>(request: &Request<B>, name: &DomainName) -> Result<(), Reason> {
    let is_http2 = request.version() == Version::HTTP_2;
    let is_extended_connect = is_http2 && request.extensions().get::<Protocol>().is_some();
    if request.method() == Method::CONNECT && !is_extended_connect
        || !has_unambiguous_framing(request.headers())
    {
        return Err(Reason::NotJudgeable);
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(parse_host_header).transpose()?;
    if hosts.next().is_some() {
        return Err(Reason::NameConflict);
    }
    let uri = request.uri();
    let authority = uri.authority().map(|authority| split_host_port(authority.as_str()));
    let authority = authority.transpose()?;
    if uri.scheme().is_some_and(|scheme| !is_http2 && *scheme != Scheme::HTTPS)
        || uri.scheme().is_some() != uri.authority().is_some()
    {
        return Err(Reason::NotJudgeable);
    }
    // HTTP/1 requires the field, and HTTP/2 clients may leave it out.
    let mut named = [authority, host].into_iter().flatten().peekable();
    if named.peek().is_none() || !is_http2 && host.is_none() {
        return Err(Reason::HostMismatch);
    }
    let is_name = |(host, _): (&str, Option<&str>)| {
        host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name.as_str())
    };
    if named.all(is_name) { Ok(()) } else { Err(Reason::HostMismatch) }
}

#[cfg(test)]
mod tests {
    use hyper::http::request::Builder;

    use super::*;

    fn check(request: Builder) -> Result<(), Reason> {
        let name = DomainName::parse("api.example.com").expect("a name");
        check_request(&request.body(()).expect("a request"), &name)
    }

    fn http1(host: &str) -> Builder {
        Request::builder().uri("/path").header("host", host)
    }

    fn http2(uri: &str) -> Builder {
        Request::builder().version(Version::HTTP_2).uri(uri)
    }

    #[test]
    fn requests_for_the_name_of_the_connection_pass() {
        for host in
            ["api.example.com", "API.example.com:443", "api.example.com.", "api.example.com:8443"]
        {
            assert_eq!(check(http1(host)), Ok(()), "{host}");
        }
        assert_eq!(check(http1("api.example.com").uri("https://api.example.com/")), Ok(()));
        assert_eq!(check(http2("https://api.example.com/")), Ok(()));
        assert_eq!(
            check(http2("https://api.example.com:443/").header("host", "api.example.com")),
            Ok(())
        );
    }

    #[test]
    fn requests_for_other_names_do_not() {
        let other = Err(Reason::HostMismatch);
        for host in
            ["evil.example", "example.com", "x.api.example.com", "192.0.2.1", "[2001:db8::1]"]
        {
            assert_eq!(check(http1(host)), other, "{host}");
            assert_eq!(check(http2(&format!("https://{host}/"))), other, "{host}");
        }
        assert_eq!(check(Request::builder().uri("/")), other);
        assert_eq!(check(http1("api.example.com").uri("https://evil.example/")), other);
        assert_eq!(check(http1("evil.example").uri("https://api.example.com/")), other);
        assert_eq!(check(http2("https://api.example.com/").header("host", "evil.example")), other);
        assert_eq!(check(http2("/")), other);
    }

    #[test]
    fn ambiguous_requests_are_not_judged() {
        let twice = http1("api.example.com").header("host", "api.example.com");
        assert_eq!(check(twice), Err(Reason::NameConflict));
        for host in ["user@api.example.com", "api.example.com:x", "api.example.com/", ""] {
            assert_eq!(check(http1(host)), Err(Reason::InvalidName), "{host}");
        }
        let proxied = http1("api.example.com").uri("http://api.example.com/");
        assert_eq!(check(proxied), Err(Reason::NotJudgeable));
        let connect = http1("api.example.com").method("CONNECT").uri("api.example.com:443");
        assert_eq!(check(connect), Err(Reason::NotJudgeable));
        let encoded = http1("api.example.com").header("transfer-encoding", "gzip, chunked");
        assert_eq!(check(encoded), Err(Reason::NotJudgeable));
    }
}
