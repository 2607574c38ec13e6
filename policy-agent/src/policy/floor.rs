//! The operator's rules for all sandboxes: lines 4 and 5 of the precedence.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{ValidationError, cidr, embedded_ipv4, entry_list, host_prefixes, rule_reference};

/// The default of `platform_deny`: everything but the public Internet. Each entry has its reason.
pub const DEFAULT_PLATFORM_DENY: [(&str, &str); 21] = [
    ("0.0.0.0/8", "\"this network\", RFC 791"),
    ("10.0.0.0/8", "private, RFC 1918"),
    ("100.64.0.0/10", "carrier-grade NAT, RFC 6598"),
    ("127.0.0.0/8", "loopback, RFC 1122"),
    ("169.254.0.0/16", "link-local, RFC 3927, and the clouds' metadata services"),
    ("168.63.129.16/32", "Azure's metadata service and DNS"),
    ("172.16.0.0/12", "private, RFC 1918"),
    ("192.168.0.0/16", "private, RFC 1918"),
    ("192.0.0.0/24", "IETF protocol assignments, RFC 6890"),
    ("192.88.99.0/24", "6to4 relays, withdrawn by RFC 7526"),
    ("198.18.0.0/15", "benchmarking, RFC 2544"),
    ("224.0.0.0/4", "multicast, RFC 5771"),
    ("240.0.0.0/4", "reserved, RFC 1112, and broadcast"),
    ("::/128", "unspecified, RFC 4291"),
    ("::1/128", "loopback, RFC 4291"),
    ("64:ff9b:1::/48", "NAT64 of local networks, RFC 8215"),
    ("5f00::/16", "segment routing, RFC 9602"),
    ("fc00::/7", "unique local, RFC 4193"),
    ("fe80::/10", "link-local, RFC 4291"),
    ("fec0::/10", "site-local, withdrawn by RFC 3879"),
    ("ff00::/8", "multicast, RFC 4291"),
];

/// The operator's lists, and the host's own addresses. No sandbox's policy overrides them.
///
/// Rules of line 5 have consecutive indexes: `deny`, then `deny_add`, then `host_addresses`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Floor {
    /// `platform_allow`: allowed before all other rules.
    pub allow: Arc<[IpNet]>,
    /// `platform_deny`: dropped, including addresses embedded in IPv6 addresses.
    pub deny: Arc<[IpNet]>,
    /// `platform_deny_add`: like `platform_deny`.
    pub deny_add: Arc<[IpNet]>,
    /// The host's own addresses in one network namespace, except those that a list contains. They
    /// are dropped as well. TCP to their ports 80 and 443 is judged by name if there are domain
    /// rules, because the gateway may listen there.
    pub host_addresses: Arc<[IpNet]>,
}

impl Floor {
    /// Parses the operator's lists. Without `deny`, the default applies. Unlike in a sandbox's
    /// lists, an entry may contain the unspecified address, as in the default list.
    ///
    /// # Errors
    /// An entry is invalid. The error contains the field and the entry.
    pub fn new(allow: &[String], deny: Option<&[String]>) -> Result<Self, ValidationError> {
        let allow = entry_list::parse_entries("dataplane.platform_allow", allow, cidr::parse_cidr)?;
        let deny = match deny {
            Some(deny) => {
                entry_list::parse_entries("dataplane.platform_deny", deny, cidr::parse_cidr)?.into()
            }
            None => Self::default().deny,
        };
        Ok(Self {
            allow: allow.into(),
            deny,
            deny_add: Arc::default(),
            host_addresses: Arc::default(),
        })
    }

    /// Returns the floor with this `platform_deny_add`.
    ///
    /// # Errors
    /// An entry is invalid. The error contains it.
    pub fn with_deny_add(self, added: &[String]) -> Result<Self, ValidationError> {
        let added =
            entry_list::parse_entries("dataplane.platform_deny_add", added, cidr::parse_cidr)?;
        Ok(Self { deny_add: added.into(), ..self })
    }

    /// Returns the floor with these addresses of the host instead of the previous ones. Prefixes
    /// that the deny lists contain are omitted. Those in `platform_allow` are not: line 5 still
    /// applies to addresses that embed them. If more than 4 096 remain, they are widened until they
    /// fit, which denies more, never less.
    #[must_use]
    pub fn with_host_addresses(&self, addresses: &[IpNet]) -> Self {
        let lists = self.deny.iter().chain(&*self.deny_add);
        Self {
            host_addresses: host_prefixes::denied_host_prefixes(addresses, lists).into(),
            ..self.clone()
        }
    }

    /// Whether the host has so many addresses that their prefixes were widened.
    #[must_use]
    pub fn has_widened_host_addresses(&self, addresses: &[IpNet]) -> bool {
        // /0 prefixes of the host are split into two halves.
        let given = |net: &IpNet| net.prefix_len() == 1 || addresses.contains(net);
        !self.host_addresses.iter().all(given)
    }

    /// Returns the floor with all addresses as the host's. Used while the host's addresses are
    /// unknown.
    #[must_use]
    pub fn with_unknown_host_addresses(&self) -> Self {
        self.with_host_addresses(&[
            IpNet::V4(ipnet::Ipv4Net::default()),
            IpNet::V6(ipnet::Ipv6Net::default()),
        ])
    }

    /// The operator's lists alone, without the host's own addresses.
    #[must_use]
    pub fn operator_lists(&self) -> Self {
        Self { host_addresses: Arc::default(), ..self.clone() }
    }

    /// Whether lines 4 and 5 allow this address to be reached at all. The egress proxy checks every
    /// address that a name resolves to before it connects.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.matching_allow(address).is_some() || self.matching_deny(address).is_none()
    }

    /// Whether `platform_allow` contains this address.
    #[must_use]
    pub fn is_platform_allowed(&self, address: IpAddr) -> bool {
        self.matching_allow(address).is_some()
    }

    /// Whether line 5 denies an address as one of the host's own.
    #[must_use]
    pub fn is_denied_host_address(&self, address: IpAddr) -> bool {
        let denied =
            || self.matching_deny(address).is_some_and(|place| self.host_rule(place).is_some());
        self.matching_allow(address).is_none() && denied()
    }

    /// Line 4: the index of the `platform_allow` entry that covers an address.
    pub(super) fn matching_allow(&self, address: IpAddr) -> Option<usize> {
        rule_reference::longest_entry(
            self.allow.iter().map(|net| cidr::covering_length(net, address)),
        )
    }

    /// Line 5: the index of the rule that covers an address or the IPv4 address embedded in it. The
    /// operator's lists precede the host's own addresses.
    ///
    /// `platform_deny` denies an embedded address even if `platform_allow` contains its IPv4 form.
    /// An operator who wants to allow it adds the IPv6 form to `platform_allow`. Only for a Teredo
    /// client does `platform_allow` apply to the IPv4 address, because the client is looked up in
    /// the IPv4 table.
    pub(super) fn matching_deny(&self, address: IpAddr) -> Option<usize> {
        self.longest_deny(|net| matched_bits(net, address)).or_else(|| {
            let IpAddr::V6(v6) = address else { return None };
            let client = embedded_ipv4::teredo_client(v6)?.into();
            if self.matching_allow(client).is_some() {
                return None;
            }
            self.longest_deny(|net| cidr::covering_length(net, client))
        })
    }

    /// The best match. The operator's lists precede the host's own addresses.
    fn longest_deny(&self, length: impl Fn(&IpNet) -> Option<u8>) -> Option<usize> {
        let listed = self.deny.iter().chain(&*self.deny_add);
        let host = || rule_reference::longest_entry(self.host_addresses.iter().map(&length));
        rule_reference::longest_entry(listed.map(&length))
            .or_else(|| Some(self.first_host_rule() + host()?))
    }

    /// The index of the first host address among the rules of line 5.
    pub(super) fn first_host_rule(&self) -> usize {
        self.deny.len() + self.deny_add.len()
    }

    /// The host address with this index among the rules of line 5.
    pub(super) fn host_rule(&self, place: usize) -> Option<&IpNet> {
        self.host_addresses.get(place.checked_sub(self.first_host_rule())?)
    }
}

/// The number of leading bits of an address that an entry of `platform_deny` matches, if it denies
/// the address.
fn matched_bits(net: &IpNet, address: IpAddr) -> Option<u8> {
    let inside = || {
        let IpAddr::V6(v6) = address else { return None };
        let (v4, offset) = embedded_ipv4::embedded_ipv4(v6)?;
        Some(offset + cidr::covering_length(net, v4.into())?)
    };
    cidr::covering_length(net, address).or_else(inside)
}

impl Default for Floor {
    fn default() -> Self {
        // A test parses all of them.
        let deny =
            DEFAULT_PLATFORM_DENY.iter().filter_map(|(entry, _)| entry.parse().ok()).collect();
        Self {
            allow: Arc::default(),
            deny,
            deny_add: Arc::default(),
            host_addresses: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests;
