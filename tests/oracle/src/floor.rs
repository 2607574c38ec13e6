//! Lines 4 and 5 of the precedence: what the operator allows and denies to all sandboxes.

use std::net::IpAddr;

use crate::{embedded_address, prefix::OraclePrefix, rule_list::RuleList};

/// The built-in `platform_deny`.
const BUILT_IN_DENY: [&str; 21] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "168.63.129.16/32",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b:1::/48",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// The operator's lists as the configuration has them, and the host's addresses.
#[derive(Clone, Debug, Default)]
pub struct FloorLists {
    /// `platform_allow`.
    pub platform_allow: Vec<String>,
    /// `platform_deny`. Without it, the built-in list applies.
    pub platform_deny: Option<Vec<String>>,
    /// `platform_deny_add`.
    pub platform_deny_add: Vec<String>,
    /// The addresses and prefixes of the host. None is a /0.
    pub host_addresses: Vec<String>,
}

/// The parsed lists.
pub(crate) struct OracleFloor {
    allow: RuleList,
    deny: RuleList,
    deny_add: RuleList,
    host_addresses: RuleList,
}

/// A rule of line 5.
pub(crate) struct PlatformDenyRule {
    pub shown: String,
    /// Whether it is one of the host's addresses.
    pub is_host_address: bool,
}

impl OracleFloor {
    pub(crate) fn read(lists: &FloorLists) -> Self {
        let deny = match &lists.platform_deny {
            Some(deny) => RuleList::read("platform_deny", deny),
            None => RuleList::read("platform_deny", &BUILT_IN_DENY),
        };
        let allow = RuleList::read("platform_allow", &lists.platform_allow);
        let deny_add = RuleList::read("platform_deny_add", &lists.platform_deny_add);
        let mut host_addresses = RuleList::read_unnumbered("host_address", &lists.host_addresses);
        // Not those of `platform_allow`: an address that embeds one of them is denied.
        let listed: Vec<_> = [&deny, &deny_add].into_iter().flat_map(RuleList::prefixes).collect();
        host_addresses.retain_and_sort(|own| !is_link_scoped(own) && !are_all_listed(own, &listed));
        Self { allow, deny, deny_add, host_addresses }
    }

    /// Line 4.
    pub(crate) fn platform_allow(&self, address: IpAddr) -> Option<String> {
        self.allow.longest(|entry| entry.length_if_covers(address)).map(|rule| rule.shown)
    }

    /// Line 5: the address itself and what it embeds, then the client of a Teredo address, unless
    /// `platform_allow` holds that.
    pub(crate) fn platform_deny(&self, address: IpAddr) -> Option<PlatformDenyRule> {
        self.deciding_deny(|entry| matched_bits(entry, address)).or_else(|| {
            let client = IpAddr::from(embedded_address::teredo_client(address)?);
            if self.platform_allow(client).is_some() {
                return None;
            }
            self.deciding_deny(|entry| entry.length_if_covers(client))
        })
    }

    /// The longest entry of both lists, and if there is none, of the host's addresses.
    fn deciding_deny(
        &self,
        matched: impl Fn(OraclePrefix) -> Option<u8>,
    ) -> Option<PlatformDenyRule> {
        let (deny, added) = (self.deny.longest(&matched), self.deny_add.longest(&matched));
        let listed = match (deny, added) {
            (Some(deny), Some(added)) if added.length > deny.length => Some(added),
            (deny, added) => deny.or(added),
        };
        let is_host_address = listed.is_none();
        let rule = listed.or_else(|| self.host_addresses.longest(&matched))?;
        Some(PlatformDenyRule { shown: rule.shown, is_host_address })
    }
}

/// The number of an address's leading bits that an entry of line 5 determines.
fn matched_bits(entry: OraclePrefix, address: IpAddr) -> Option<u8> {
    entry.length_if_covers(address).or_else(|| {
        let (v4, offset) = embedded_address::embedded_address(address)?;
        Some(offset + entry.length_if_covers(v4.into())?)
    })
}

/// Loopback and link-local addresses do not count as the host's.
fn is_link_scoped(own: OraclePrefix) -> bool {
    ["127.0.0.0/8", "::1/128", "fe80::/10"]
        .into_iter()
        .filter_map(OraclePrefix::parse)
        .any(|scope| scope.length_if_covers(own.address()).is_some())
}

/// Returns whether lists hold every address of a prefix, be it in several parts.
fn are_all_listed(prefix: OraclePrefix, lists: &[OraclePrefix]) -> bool {
    if lists.iter().any(|entry| entry.contains(prefix)) {
        return true;
    }
    let parts: Vec<_> = lists.iter().copied().filter(|entry| prefix.contains(*entry)).collect();
    let halves = prefix.halves().filter(|_| !parts.is_empty());
    halves.is_some_and(|halves| halves.iter().all(|half| are_all_listed(*half, &parts)))
}
