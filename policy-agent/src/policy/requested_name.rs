//! The name that a client asks for.

use std::net::{IpAddr, Ipv6Addr};

use super::DomainName;

/// The name of a connection or request as its client sent it (SNI or Host, without a port), and its
/// meaning. Parsed once, and used for the verdict, the dial and the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedName {
    text: String,
    host: RequestedHost,
}

/// The meaning of a requested name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestedHost {
    Domain(DomainName),
    /// An IP address, which does not count as a name.
    Address,
    Invalid,
}

impl RequestedName {
    /// Parses a name from a client.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let host = match DomainName::parse_requested(text) {
            _ if is_ip_literal(text) => RequestedHost::Address,
            Ok(domain) => RequestedHost::Domain(domain),
            Err(_) => RequestedHost::Invalid,
        };
        Self { text: text.to_owned(), host }
    }

    /// The name as the client sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The domain, unless it is an address or invalid.
    #[must_use]
    pub const fn domain(&self) -> Option<&DomainName> {
        match &self.host {
            RequestedHost::Domain(domain) => Some(domain),
            RequestedHost::Address | RequestedHost::Invalid => None,
        }
    }

    pub(super) const fn host(&self) -> &RequestedHost {
        &self.host
    }
}

/// Whether a host is an IP address, with or without brackets.
pub(super) fn is_ip_literal(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    }
}
