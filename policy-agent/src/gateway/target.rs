//! Determines the sandbox and port of a request.

use std::net::IpAddr;

use hyper::{
    Method, Request, Version,
    header::{self, HeaderMap},
    http::uri::Authority,
};

use super::domains::GatewayDomains;
use crate::policy::SandboxId;

const SANDBOX_HEADER: &str = "e2b-sandbox-id";
const PORT_HEADER: &str = "e2b-sandbox-port";

/// A port of a sandbox. Neither needs to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SandboxTarget {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The port inside it.
    pub port: u16,
    /// The requested host, as the client wrote it.
    pub host: String,
}

/// Why a request has no target. The text says what to send instead.
pub(super) type TargetError = &'static str;

/// The target of a request. If its host does not name a sandbox, the host forwarded by a trusted
/// proxy is used.
///
/// # Errors
/// The host is missing, given more than once, or not of the form of a public URL.
pub(super) fn parse_target<B>(
    request: &Request<B>,
    domains: &GatewayDomains,
    forwarded: Option<&str>,
) -> Result<SandboxTarget, TargetError> {
    let from_host = target_of_host(request_host(request)?, request.headers(), domains);
    let forwarded = || target_of_host(forwarded?, request.headers(), domains).ok();
    from_host.or_else(|error| forwarded().ok_or(error))
}

fn target_of_host(
    host: &str,
    headers: &HeaderMap,
    domains: &GatewayDomains,
) -> Result<SandboxTarget, TargetError> {
    let authority: Authority = host.parse().map_err(|_| "Host is not a valid host")?;
    if !is_host_and_port(&authority) {
        return Err("Host is not a valid host");
    }
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let (sandbox, port) = match domains.strip_from(&name) {
        Some(label) if label != "sandbox" => parse_label(label)?,
        Some(_) => parse_target_headers(headers)?,
        None if is_local_host(&name) => parse_target_headers(headers)?,
        None => return Err("Host is not in the domain of this gateway"),
    };
    Ok(SandboxTarget { sandbox, port, host: host.to_owned() })
}

/// The sandbox that serves an origin, if any.
pub(super) fn sandbox_of_origin(origin: &str, domains: &GatewayDomains) -> Option<SandboxId> {
    let (_, host) = origin.split_once("://")?;
    target_of_host(host, &HeaderMap::new(), domains).ok().map(|target| target.sandbox)
}

/// The single host of a request.
fn request_host<B>(request: &Request<B>) -> Result<&str, TargetError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host_field = hosts.next().map(|host| host.to_str().map_err(|_| "Host is not a valid host"));
    let host_field = host_field.transpose()?;
    if hosts.next().is_some() {
        return Err("Host is given more than once");
    }
    match (request.uri().authority().map(Authority::as_str), host_field) {
        (Some(target), Some(host_field)) if !target.eq_ignore_ascii_case(host_field) => {
            Err("Host differs from the request's target")
        }
        // RFC 9112, 3.2.2: in HTTP/1.1 an absolute target does not replace the Host field.
        (Some(_), None)
            if request.version() < Version::HTTP_2 && request.method() != Method::CONNECT =>
        {
            Err("Host is missing")
        }
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err("Host is missing"),
    }
}

/// Whether the authority is a host with an optional port. The library also accepts other forms.
fn is_host_and_port(authority: &Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host());
    port.is_some_and(|port| {
        port.is_empty() || port.strip_prefix(':').and_then(parse_port).is_some()
    })
}

/// Parses `<port>-<id>` and the older `<port>-<id>-<anything>`.
fn parse_label(label: &str) -> Result<(SandboxId, u16), TargetError> {
    let form = "the host has to be <port>-<sandbox ID>.<domain>";
    let mut parts = label.splitn(3, '-');
    let (port, id) = (parts.next().ok_or(form)?, parts.next().ok_or(form)?);
    if label.contains('.') {
        return Err(form);
    }
    Ok((id.parse().map_err(|_| form)?, parse_port(port).ok_or(form)?))
}

/// Reads sandbox and port from headers, for hosts that cannot contain them.
fn parse_target_headers(headers: &HeaderMap) -> Result<(SandboxId, u16), TargetError> {
    let single = |name| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().and_then(|value| value.to_str().ok())?;
        values.next().is_none().then_some(value)
    };
    let id = single(SANDBOX_HEADER).and_then(|id| id.parse().ok());
    let port = single(PORT_HEADER).and_then(parse_port);
    let advice = "without <port>-<sandbox ID> in the host, \
                  E2b-Sandbox-Id and E2b-Sandbox-Port have to name them";
    id.zip(port).ok_or(advice)
}

/// Parses digits without a leading zero: every port has exactly one spelling.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

fn is_local_host(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> GatewayDomains {
        GatewayDomains::new(vec!["example.com".to_owned()])
    }

    fn target(
        build: impl Fn(http::request::Builder) -> http::request::Builder,
    ) -> Result<(String, u16), TargetError> {
        let request = build(Request::builder()).body(()).expect("a request");
        parse_target(&request, &domains(), None)
            .map(|target| (target.sandbox.to_string(), target.port))
    }

    #[test]
    fn the_host_names_port_and_sandbox() {
        for host in [
            "3000-abc.example.com",
            "3000-abc.example.com:8443",
            "3000-ABC.Example.COM",
            "3000-abc.example.com.",
            "3000-abc-6532622b.example.com",
            "3000-abc-a-b.example.com",
        ] {
            let found = target(|request| request.header("host", host));
            assert_eq!(found, Ok(("abc".to_owned(), 3000)), "{host}");
        }
    }

    #[test]
    fn other_hosts_name_nobody() {
        for host in [
            "",
            "example.com",
            "abc.example.com",
            "3000-.example.com",
            "-abc.example.com",
            "0-abc.example.com",
            "03000-abc.example.com",
            "+3000-abc.example.com",
            "65536-abc.example.com",
            "3000-abc.example.org",
            "3000-abc.evil-example.com",
            "x.3000-abc.example.com",
            "3000-a_c.example.com",
            "u@3000-abc.example.com",
            "3000-abc.example.com/",
            "3000-abc.example.com:port",
            "3000-abc.example.com:",
            "3000 -abc.example.com",
        ] {
            assert!(target(|request| request.header("host", host)).is_err(), "{host:?}");
        }
        assert!(target(|request| request).is_err());
        let twice = |request: http::request::Builder| {
            request.header("host", "3000-abc.example.com").header("host", "3000-abc.example.com")
        };
        assert_eq!(target(twice), Err("Host is given more than once"));
    }

    #[test]
    fn an_absolute_target_has_to_agree() {
        let at = |uri: &'static str, host: &'static str| {
            target(move |request| request.uri(uri).header("host", host))
        };
        assert!(at("http://1-a.example.com/x", "1-a.example.com").is_ok());
        assert!(at("http://1-a.example.com/x", "1-b.example.com").is_err());
        assert!(target(|request| request.uri("http://1-a.example.com/x")).is_err());
        let h2 = |request: http::request::Builder| {
            request.uri("https://1-a.example.com/x").version(Version::HTTP_2)
        };
        assert!(target(h2).is_ok());
    }

    #[test]
    fn a_trusted_proxy_may_have_been_asked_for_another_host() {
        let parse = |host: &str, forwarded: &str| {
            let request = Request::builder().header("host", host).body(()).expect("a request");
            let target = parse_target(&request, &domains(), Some(forwarded));
            target.map(|target| (target.sandbox.to_string(), target.host))
        };
        let expected = |id: &str, host: &str| Ok((id.to_owned(), host.to_owned()));
        for host in ["gateway.internal:8080", "192.0.2.1", "sandbox.example.com"] {
            assert_eq!(parse(host, "1-a.example.com"), expected("a", "1-a.example.com"), "{host}");
        }
        let own_host = "1-b.example.com";
        assert_eq!(parse(own_host, "1-a.example.com"), expected("b", own_host));
        assert_eq!(parse(own_host, "app.example.org"), expected("b", own_host));
        assert!(parse("gateway.internal", "app.example.org").is_err());
    }

    #[test]
    fn origins_are_of_sandboxes_or_not() {
        let sandbox_id = |origin| sandbox_of_origin(origin, &domains()).map(|id| id.to_string());
        assert_eq!(sandbox_id("https://3000-abc.example.com:8443").as_deref(), Some("abc"));
        for other in
            ["https://app.example.com", "https://example.org", "null", "3000-abc.example.com"]
        {
            assert_eq!(sandbox_id(other), None, "{other}");
        }
    }

    #[test]
    fn headers_name_them_where_the_host_cannot() {
        let with = |host: &'static str, id: &'static str, port: &'static str| {
            target(move |request| {
                request.header("host", host).header(SANDBOX_HEADER, id).header(PORT_HEADER, port)
            })
        };
        for host in ["localhost:80", "127.0.0.1", "[::1]:3000", "sandbox.example.com"] {
            assert_eq!(with(host, "abc", "49983"), Ok(("abc".to_owned(), 49983)), "{host}");
            assert!(with(host, "abc", "0").is_err() && with(host, "a-c", "1").is_err());
        }
        assert!(with("example.org", "abc", "1").is_err());
        let found = with("7-b.example.com", "abc", "1");
        assert_eq!(found, Ok(("b".to_owned(), 7)), "the host goes before them");
    }
}
