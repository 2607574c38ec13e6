//! What the operator decides for all sandboxes: lines 4 and 5 of the precedence.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Invalid, cidr, embedded, list, rule};

/// `platform_deny` when the operator sets none: what is not the public Internet.
const PLATFORM_DENY: [&str; 16] = [
    "0.0.0.0/8",      // "this network", RFC 791
    "10.0.0.0/8",     // private, RFC 1918
    "100.64.0.0/10",  // carrier-grade NAT, RFC 6598
    "127.0.0.0/8",    // loopback
    "169.254.0.0/16", // link-local, and the clouds' metadata services
    "172.16.0.0/12",  // private, RFC 1918
    "192.168.0.0/16", // private, RFC 1918
    "192.0.0.0/24",   // IETF protocol assignments, RFC 6890
    "198.18.0.0/15",  // benchmarking, RFC 2544
    "224.0.0.0/4",    // multicast
    "240.0.0.0/4",    // reserved, and broadcast
    "::/128",         // unspecified
    "::1/128",        // loopback
    "fc00::/7",       // unique local, RFC 4193
    "fe80::/10",      // link-local
    "ff00::/8",       // multicast
];

/// The operator's lists. No sandbox's policy overrides them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Floor {
    /// `platform_allow`: let out before anything else is asked.
    pub allow: Vec<IpNet>,
    /// `platform_deny`: dropped, also when embedded in an IPv6 address.
    pub deny: Vec<IpNet>,
}

impl Floor {
    /// Reads the operator's lists; without `deny`, the default one holds. Unlike in a sandbox's
    /// lists, an entry may cover the unspecified address, as the default list does.
    ///
    /// # Errors
    /// Names the field and entry at fault.
    pub fn new(allow: &[String], deny: Option<&[String]>) -> Result<Self, Invalid> {
        let allow = list::read("dataplane.platform_allow", allow, cidr::parse)?;
        let deny = match deny {
            Some(deny) => list::read("dataplane.platform_deny", deny, cidr::parse)?,
            None => Self::default().deny,
        };
        Ok(Self { allow, deny })
    }

    /// Whether lines 4 and 5 let this address be reached at all. The egress proxy asks this about
    /// every address that a name resolves to, before it connects.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.allowing(address).is_some() || self.denying(address).is_none()
    }

    /// Whether `platform_allow` holds this address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allowing(address).is_some()
    }

    /// Line 4: the entry of `platform_allow` that covers an address.
    pub(super) fn allowing(&self, address: IpAddr) -> Option<usize> {
        rule::longest(self.allow.iter().map(|net| cidr::length(net, address)))
    }

    /// Line 5: the entry of `platform_deny` that covers an address, or the one that it embeds.
    ///
    /// An embedded address is denied by `platform_deny` also where `platform_allow` holds its
    /// IPv4: the operator who wants it writes the IPv6 form into `platform_allow`. Only for the
    /// Teredo client `platform_allow` counts, because that is an IPv4 lookup.
    pub(super) fn denying(&self, address: IpAddr) -> Option<usize> {
        let direct = rule::longest(self.deny.iter().map(|net| denies(net, address)));
        direct.or_else(|| {
            let IpAddr::V6(v6) = address else { return None };
            let client = embedded::teredo_client(v6)?.into();
            if self.allowing(client).is_some() {
                return None;
            }
            rule::longest(self.deny.iter().map(|net| cidr::length(net, client)))
        })
    }
}

/// How many leading bits of an address an entry of `platform_deny` names, if it denies it.
fn denies(net: &IpNet, address: IpAddr) -> Option<u8> {
    let inside = || {
        let IpAddr::V6(v6) = address else { return None };
        let (v4, offset) = embedded::embedded(v6)?;
        Some(offset + cidr::length(net, v4.into())?)
    };
    cidr::length(net, address).or_else(inside)
}

impl Default for Floor {
    fn default() -> Self {
        // A test reads every one of them.
        let deny = PLATFORM_DENY.iter().filter_map(|entry| entry.parse().ok()).collect();
        Self { allow: Vec::new(), deny }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_ENTRIES;
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_list_is_read_whole() {
        let floor = Floor::default();
        assert_eq!(floor.deny.len(), PLATFORM_DENY.len());
        assert_eq!(Floor::new(&[], None), Ok(floor));
        assert_eq!(
            Floor::new(&[], Some(&strings(&PLATFORM_DENY))),
            Floor::new(&[], None),
            "the list can be written out"
        );
    }

    #[test]
    fn the_default_floor() {
        let floor = Floor::default();
        for (address, admitted) in [
            ("8.8.8.8", true),
            ("2001:4860:4860::8888", true),
            ("0.0.0.0", false),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.64.0.0", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("172.15.255.255", true),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("192.0.0.1", false),
            ("192.0.1.1", true),
            ("198.19.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("::10.0.0.1", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b::808:808", true),
            ("2002:a00:1::1", false),
            ("2002:808:808::1", true),
            ("2001:0:a00:1::", false), // Teredo, the server 10.0.0.1
            ("2001:0:808:808::f5ff:fffe", false), // Teredo, the client 10.0.0.1
            ("2001:0:808:808::f7f7:f7f7", true), // Teredo, the client 8.8.8.8
        ] {
            assert_eq!(floor.admits(address.parse().expect(address)), admitted, "{address}");
        }
    }

    #[test]
    fn platform_allow_wins_over_platform_deny() {
        let allow = strings(&["10.0.0.53", "64:ff9b::a00:36"]);
        let floor = Floor::new(&allow, None).expect("good");
        for (address, admitted) in [
            ("10.0.0.53", true),
            ("10.0.0.54", false),
            ("64:ff9b::a00:35", false), // its IPv4 is allowed, this is not written
            ("64:ff9b::a00:36", true),  // written as IPv6
            ("2001:0:808:808::f5ff:ffca", true), // the Teredo client 10.0.0.53
            ("2001:0:808:808::f5ff:ffc9", false), // the Teredo client 10.0.0.54
        ] {
            assert_eq!(floor.admits(address.parse().expect(address)), admitted, "{address}");
        }
    }

    #[test]
    fn errors_name_the_key() {
        let error = Floor::new(&[], Some(&strings(&["10.0.0.0/8", "10.0.0.0/99"])));
        let error = error.expect_err("a bad length").to_string();
        assert!(error.starts_with("dataplane.platform_deny[1]: \"10.0.0.0/99\": "), "{error}");
        let many = vec!["10.0.0.1".to_owned(); MAX_ENTRIES + 1];
        let error = Floor::new(&many, None).expect_err("too many").to_string();
        assert!(error.contains("100001 entries; the limit is 100000"), "{error}");
    }
}
