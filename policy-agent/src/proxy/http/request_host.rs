//! The host that a request is for.

use hyper::{
    Method, Request,
    header::{self, HeaderValue},
    http::uri::{Authority, Scheme},
};
use policy_common::reason::Reason;

use crate::net::hop_by_hop::has_unambiguous_framing;

/// The host of a request as written, without its port. `None` if the request names none.
///
/// # Errors
/// The request names different hosts, or cannot be decided on.
pub(super) fn requested_host<B>(request: &Request<B>) -> Result<Option<&str>, Reason> {
    if request.method() == Method::CONNECT || !has_unambiguous_framing(request.headers()) {
        return Err(Reason::NotJudgeable);
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(parse_host_header).transpose()?;
    if hosts.next().is_some() {
        return Err(Reason::NameConflict);
    }
    let uri = request.uri();
    match (uri.scheme(), uri.authority()) {
        (None, None) => Ok(host.map(|(name, _)| name)),
        (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => {
            let target = split_host_port(authority.as_str())?;
            match host {
                Some(host) if is_same_authority(host, target) => Ok(Some(host.0)),
                _ => Err(Reason::NameConflict),
            }
        }
        _ => Err(Reason::NotJudgeable),
    }
}

/// Name and port.
pub(in crate::proxy) type HostPort<'a> = (&'a str, Option<&'a str>);

/// Parses the value of a `Host` field.
///
/// # Errors
/// It is no host.
pub(in crate::proxy) fn parse_host_header(value: &HeaderValue) -> Result<HostPort<'_>, Reason> {
    split_host_port(value.to_str().map_err(|_| Reason::InvalidName)?)
}

/// Splits a host and a port. The port may be empty.
///
/// # Errors
/// It is no host.
pub(in crate::proxy) fn split_host_port(text: &str) -> Result<HostPort<'_>, Reason> {
    let authority: Authority = text.parse().map_err(|_| Reason::InvalidName)?;
    // Any server must see the same host as this library: nothing before it, and only digits after
    // it.
    let name = text.get(..authority.host().len()).filter(|name| *name == authority.host());
    let name = name.ok_or(Reason::InvalidName)?;
    match text[name.len()..].strip_prefix(':') {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((name, Some(port))),
        None if text.len() == name.len() => Ok((name, None)),
        _ => Err(Reason::InvalidName),
    }
}

fn is_same_authority((name, port): HostPort<'_>, (target, target_port): HostPort<'_>) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let port_of = |port: Option<&str>| match port {
        None | Some("") => Some(80),
        Some(digits) => digits.parse::<u16>().ok(),
    };
    bare(name) == bare(target) && port_of(port) == port_of(target_port)
}
