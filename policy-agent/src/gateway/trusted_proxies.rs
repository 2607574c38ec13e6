//! Determines the client behind the operator's own proxies (`[gateway] trusted_proxies`). Their
//! `X-Forwarded-*` headers are trusted. Those of any other peer are not.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;
use ipnet::IpNet;

use super::{client_listener::UrlScheme, forwarded_headers};
use crate::net::hop_by_hop::list_members;

/// The peer of a connection, and the scheme of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionPeer {
    /// The peer's address, or the one in its PROXY header.
    pub address: IpAddr,
    /// The scheme between the peer and the gateway, or between the PROXY header's client and the
    /// peer.
    pub scheme: UrlScheme,
}

/// The original client of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestClient {
    /// Its address.
    pub address: IpAddr,
    /// The scheme it used.
    pub scheme: UrlScheme,
    /// The host that it requested from a trusted proxy.
    pub host: Option<String>,
}

/// The networks of the trusted proxies.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts proxies in these networks.
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether an address belongs to a trusted proxy.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client of a request received from `peer`.
    pub(super) fn client_of(&self, peer: ConnectionPeer, headers: &HeaderMap) -> RequestClient {
        let ConnectionPeer { address, scheme } = peer;
        if !self.contains(address) {
            return RequestClient { address, scheme, host: None };
        }
        RequestClient {
            address: self.client_address(address, headers),
            scheme: last_member(headers, forwarded_headers::X_FORWARDED_PROTO)
                .and_then(parse_scheme)
                .unwrap_or(scheme),
            host: last_member(headers, forwarded_headers::X_FORWARDED_HOST).map(str::to_owned),
        }
    }

    /// The rightmost address that is not a trusted proxy. Each proxy appends the address of its
    /// peer, so everything to the left of an untrusted or invalid address is unverified.
    fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let mut forwarded_for: Vec<&str> =
            list_members(headers, forwarded_headers::X_FORWARDED_FOR).collect();
        while self.contains(client) {
            match forwarded_for.pop().and_then(parse_address) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// The last member of a list, added by the proxy closest to the gateway.
fn last_member<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    list_members(headers, name).last().filter(|member| !member.is_empty())
}

/// Parses an address, which some proxies write with a port.
fn parse_address(member: &str) -> Option<IpAddr> {
    let bare = member.strip_prefix('[').and_then(|member| member.strip_suffix(']'));
    let address = bare.unwrap_or(member).parse().ok();
    let address = address.or_else(|| member.parse::<SocketAddr>().ok().map(|it| it.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

fn parse_scheme(text: &str) -> Option<UrlScheme> {
    [UrlScheme::Http, UrlScheme::Https]
        .into_iter()
        .find(|it| it.as_str().eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(
        peer: &str,
        fields: &[(&'static str, &'static str)],
    ) -> (String, &'static str, Option<String>) {
        let networks = ["192.0.2.0/24", "2001:db8:1::/48"].map(|it| it.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        let peer =
            ConnectionPeer { address: peer.parse().expect("an address"), scheme: UrlScheme::Http };
        let client = TrustedProxies::new(networks.to_vec()).client_of(peer, &headers);
        (client.address.to_string(), client.scheme.as_str(), client.host)
    }

    const X_FORWARDED_FOR: &str = "x-forwarded-for";

    #[test]
    fn what_a_trusted_proxy_says_is_taken_over() {
        let fields = [
            (X_FORWARDED_FOR, "203.0.113.9"),
            ("x-forwarded-proto", "HTTPS"),
            ("x-forwarded-host", "a.test"),
        ];
        let expected = |address: &str| (address.to_owned(), "https", Some("a.test".to_owned()));
        assert_eq!(client("192.0.2.1", &fields), expected("203.0.113.9"));
        assert_eq!(client("::ffff:192.0.2.1", &fields), expected("203.0.113.9"));
        assert_eq!(client("2001:db8:1::7", &fields), expected("203.0.113.9"));
        assert_eq!(client("192.0.2.1", &[]), ("192.0.2.1".to_owned(), "http", None));
    }

    #[test]
    fn what_others_say_is_not() {
        let fields = [
            (X_FORWARDED_FOR, "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.test"),
        ];
        assert_eq!(client("198.51.100.1", &fields), ("198.51.100.1".to_owned(), "http", None));
    }

    #[test]
    fn the_right_most_address_that_is_not_a_proxys_is_the_client() {
        for (values, expected) in [
            (vec!["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            (vec!["1.1.1.1, 203.0.113.9, 192.0.2.8"], "203.0.113.9"),
            (vec!["1.1.1.1", "203.0.113.9", "192.0.2.8 , 192.0.2.9"], "203.0.113.9"),
            (vec!["192.0.2.7, 192.0.2.8"], "192.0.2.7"),
            (vec!["203.0.113.9, nonsense, 192.0.2.8"], "192.0.2.8"),
            (vec!["203.0.113.9, "], "192.0.2.1"),
            (vec!["203.0.113.9:4711"], "203.0.113.9"),
            (vec!["[2001:db8:9::1]:4711"], "2001:db8:9::1"),
            (vec!["[2001:db8:9::1]"], "2001:db8:9::1"),
            (vec!["2001:db8:9::1"], "2001:db8:9::1"),
            (vec!["unknown"], "192.0.2.1"),
        ] {
            let fields: Vec<_> = values.iter().map(|value| (X_FORWARDED_FOR, *value)).collect();
            assert_eq!(client("192.0.2.1", &fields).0, expected, "{values:?}");
        }
    }
}
