//! Who the client is behind the operator's own proxies (`[gateway] trusted_proxies`): what they say in
//! `X-Forwarded-*` is believed, and what anybody else says is not.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;
use ipnet::IpNet;

use super::{client_listener::UrlScheme, forwarded_headers};

/// Who is at the other end of a connection, and how the first bytes were protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionPeer {
    /// Its address; that of its client, if a PROXY header named one.
    pub address: IpAddr,
    /// What it speaks to us, or its client to it.
    pub scheme: UrlScheme,
}

/// Who sent a request in the first place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestClient {
    /// Its address.
    pub address: IpAddr,
    /// What it speaks.
    pub scheme: UrlScheme,
    /// The host that it asked a trusted proxy for.
    pub host: Option<String>,
}

/// The networks of the trusted proxies.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Proxies in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether an address is a proxy's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client of a request that came from `peer`.
    pub fn client_of(&self, peer: ConnectionPeer, headers: &HeaderMap) -> RequestClient {
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

    /// The right-most address that is not a proxy's. Each proxy adds whom it was asked by, so what
    /// stands to the left of an untrusted address, or of what is none, is hearsay.
    fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let mut named: Vec<&str> =
            list_members(headers, forwarded_headers::X_FORWARDED_FOR).collect();
        while self.contains(client) {
            match named.pop().and_then(parse_address) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// What the proxy next to us says.
fn last_member<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    list_members(headers, name).last().filter(|member| !member.is_empty())
}

/// The members of a list that may stand in several fields.
fn list_members<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    // A field that is no text is a member that says nothing.
    values.flat_map(|value| value.to_str().unwrap_or_default().split(',')).map(str::trim)
}

/// An address, which some proxies write with a port.
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
