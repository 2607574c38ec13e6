//! Parses what users write for a host: a host, a host with a port, or a URL.

use std::net::IpAddr;

use super::{DomainOrIp, authority};

/// Default ports of URL schemes.
const SCHEME_PORTS: [(&str, u16); 7] = [
    ("http", 80),
    ("ws", 80),
    ("https", 443),
    ("wss", 443),
    ("ftp", 21),
    ("ssh", 22),
    ("git", 9418),
];

/// A host, and the port written with it or implied by its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAndPort {
    /// The host.
    pub host: DomainOrIp,
    /// The port, if given or implied.
    pub port: Option<u16>,
}

impl HostAndPort {
    /// Parses an IP address or a name, with or without a port, or a URL, whose path and credentials
    /// are ignored.
    ///
    /// # Errors
    /// The text is invalid. The message says why.
    pub fn parse_host_or_url(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: DomainOrIp::Address(address.to_canonical()), port: None });
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = rest.rsplit_once('@').map_or(rest, |(_, authority)| authority);
        let (host, port) = authority::parse_authority(authority)?;
        let implied = scheme.and_then(|scheme| {
            SCHEME_PORTS.iter().find(|(known, _)| *known == scheme).map(|(_, port)| *port)
        });
        Ok(Self { host, port: port.or(implied) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_urls_are_read() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("Example.COM.", "example.com", None),
            ("example.com:8080", "example.com", Some(8080)),
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.1:443", "192.0.2.1", Some(443)),
            ("::ffff:192.0.2.1", "192.0.2.1", None),
            ("2001:db8::1", "[2001:db8::1]", None),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[2001:db8::1]:80", "[2001:db8::1]", Some(80)),
            ("https://api.example.com/x?y#z", "api.example.com", Some(443)),
            ("HTTP://example.com", "example.com", Some(80)),
            ("wss://example.com:8443/", "example.com", Some(8443)),
            ("ssh://git@example.com/a/b.git", "example.com", Some(22)),
            ("https://user:hunter2@[2001:db8::1]/", "[2001:db8::1]", Some(443)),
            ("foo://example.com", "example.com", None),
            ("example.com/path", "example.com", None),
        ] {
            let read = HostAndPort::parse_host_or_url(text)
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((read.host.to_string().as_str(), read.port), (host, port), "{text}");
        }
    }

    #[test]
    fn what_holds_no_host_is_refused() {
        for text in ["", "https://", "*.example.com", "a b", "1.2.3", "example.com:0", "[::1"] {
            assert!(HostAndPort::parse_host_or_url(text).is_err(), "{text}");
        }
    }
}
