//! What a request asks for, and what of it goes on.

use hyper::{
    Method, Request, Uri, Version,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
};
use policy_common::reason::Reason;

/// Fields between a client and its proxy, beside those that `Connection` names (RFC 9110, 7.6.1).
/// `TE: trailers` stays: trailers do go through.
const HOP_BY_HOP: [HeaderName; 4] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// The host that a request asks for, without its port, as it is written; `None`: it names none.
///
/// # Errors
/// There is more than one answer, or none that can be judged.
pub fn asked<B>(request: &Request<B>) -> Result<Option<&str>, Reason> {
    if request.method() == Method::CONNECT || !is_framed(request.headers()) {
        return Err(Reason::NotJudgeable);
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(host).transpose()?;
    if hosts.next().is_some() {
        return Err(Reason::NameConflict);
    }
    let uri = request.uri();
    match (uri.scheme(), uri.authority()) {
        (None, None) => Ok(host.map(|(name, _)| name)),
        (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => {
            let target = split(authority.as_str())?;
            match host {
                Some(host) if agree(host, target) => Ok(Some(host.0)),
                _ => Err(Reason::NameConflict),
            }
        }
        _ => Err(Reason::NotJudgeable),
    }
}

/// Whether every server finds the same end of the body: a single `Transfer-Encoding: chunked`, if
/// there is one at all. The HTTP library has seen to the rest.
fn is_framed(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    encodings.next().is_none_or(chunked) && encodings.next().is_none()
}

/// Name and port.
type HostPort<'a> = (&'a str, Option<&'a str>);

fn host(value: &HeaderValue) -> Result<HostPort<'_>, Reason> {
    split(value.to_str().map_err(|_| Reason::InvalidName)?)
}

fn split(text: &str) -> Result<HostPort<'_>, Reason> {
    let authority: Authority = text.parse().map_err(|_| Reason::InvalidName)?;
    // What this library takes for the host, any server has to take for it: nothing before it, and
    // after it digits only.
    let name = text.get(..authority.host().len()).filter(|name| *name == authority.host());
    let name = name.ok_or(Reason::InvalidName)?;
    match text[name.len()..].strip_prefix(':') {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((name, Some(port))),
        None if text.len() == name.len() => Ok((name, None)),
        _ => Err(Reason::InvalidName),
    }
}

fn agree((name, port): HostPort<'_>, (target, target_port): HostPort<'_>) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let port_of = |port: Option<&str>| match port {
        None | Some("") => Some(80),
        Some(digits) => digits.parse::<u16>().ok(),
    };
    bare(name) == bare(target) && port_of(port) == port_of(target_port)
}

/// Makes a request that was judged the one that goes on: its target in origin-form, without what
/// concerns this hop only. Whether it asks for another protocol.
pub fn send_on<B>(request: &mut Request<B>) -> bool {
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    }
    let upgrade = upgrade(request.headers());
    *request.version_mut() = Version::HTTP_11;
    strip(request.headers_mut());
    if let Some(upgrade) = &upgrade {
        request.headers_mut().insert(header::UPGRADE, upgrade.clone());
        let connection = HeaderValue::from_static("upgrade");
        request.headers_mut().insert(header::CONNECTION, connection);
    }
    upgrade.is_some()
}

/// Removes what concerns one hop only.
pub fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| token.parse().ok())
        .filter(|name| !is_needed(name))
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain([&header::UPGRADE]) {
        headers.remove(name);
    }
}

/// What judging and framing rest on is not for `Connection` to take away.
fn is_needed(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TE].contains(name)
}

/// The protocols that a request offers to go on with. HTTP/2 is not among them: its requests would
/// not be judged.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    tokens(headers, &header::CONNECTION).find(|token| token.eq_ignore_ascii_case("upgrade"))?;
    let is_http = |token: &&str| {
        let token = token.to_ascii_lowercase();
        token.starts_with("h2") || token.starts_with("http")
    };
    let offered: Vec<&str> =
        tokens(headers, &header::UPGRADE).filter(|token| !is_http(token)).collect();
    HeaderValue::try_from(offered.join(", ")).ok().filter(|offered| !offered.is_empty())
}

/// The members of a list that may stand in several fields.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}
