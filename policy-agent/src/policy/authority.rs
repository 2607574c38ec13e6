//! Parses `host` and `host:port`, the format of the proxy's address and the masked Host.

use std::{fmt, net::IpAddr};

use super::DomainName;

/// A host: an address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DomainOrIp {
    /// An IP address. IPv4-mapped addresses are converted to IPv4.
    Address(IpAddr),
    /// A name, which is resolved for every connection.
    Domain(DomainName),
}

impl fmt::Display for DomainOrIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Domain(name) => name.fmt(f),
        }
    }
}

/// Parses `host`, `host:port`, `[v6]` or `[v6]:port`. The error says what to write instead.
pub(super) fn parse_authority(text: &str) -> Result<(DomainOrIp, Option<u16>), String> {
    if text.contains("://") {
        return Err("write it without a scheme, like proxy.example.com:1080".to_owned());
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
        let address = address.parse::<std::net::Ipv6Addr>();
        let address = address.map_err(|_| "not an IPv6 address in brackets")?;
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(parse_port(digits)?),
            None if rest.is_empty() => None,
            None => return Err("only :port may follow the bracket".to_owned()),
        };
        return Ok((DomainOrIp::Address(IpAddr::V6(address).to_canonical()), port));
    }
    match text.split_once(':') {
        Some((_, more)) if more.contains(':') => {
            Err("write an IPv6 address in brackets, like [2001:db8::1]:1080".to_owned())
        }
        Some((name, digits)) => Ok((parse_host(name)?, Some(parse_port(digits)?))),
        None => Ok((parse_host(text)?, None)),
    }
}

fn parse_host(text: &str) -> Result<DomainOrIp, String> {
    match text.parse::<std::net::Ipv4Addr>() {
        Ok(address) => Ok(DomainOrIp::Address(address.into())),
        Err(_) => DomainName::parse(text).map(DomainOrIp::Domain),
    }
}

fn parse_port(digits: &str) -> Result<u16, String> {
    // Digits only: `u16::from_str` would accept a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let port = digits.parse().ok().filter(|_| plain);
    port.ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
}
