//! A reading of the configuration: a sandbox's `network`, and the operator's lists. It accepts what
//! the tests write, and refuses everything else.

use std::net::IpAddr;

use serde_json::Value;

use crate::{floor::OracleFloor, prefix::OraclePrefix, rule_list::RuleList};

/// The DNS server of a sandbox that has domain rules and no `dnsServers`.
const DEFAULT_NAMESERVER: &str = "8.8.8.8";

/// The lists of one sandbox, and the floor below them.
pub(crate) struct OraclePolicy {
    pub floor: OracleFloor,
    pub allow_out: RuleList,
    pub has_domains: bool,
    pub deny_out: RuleList,
    pub allows_internet: bool,
    pub nameservers: RuleList,
    pub has_egress_proxy: bool,
}

impl OraclePolicy {
    pub(crate) fn read(
        network: &Value,
        allow_internet_access: Option<bool>,
        floor: OracleFloor,
    ) -> Self {
        assert_known_fields(network);
        let allowed = read_list(&network["allowOut"]);
        let has_domains = allowed.iter().any(|entry| is_domain(entry));
        Self {
            floor,
            allow_out: RuleList::read("network.allowOut", &allowed),
            has_domains,
            deny_out: RuleList::read("network.denyOut", &read_list(&network["denyOut"])),
            allows_internet: allow_internet_access.unwrap_or(true),
            nameservers: match &network["dnsServers"] {
                Value::Null if has_domains => {
                    RuleList::read_unnumbered("default_nameserver", &[DEFAULT_NAMESERVER])
                }
                servers => RuleList::read("network.dnsServers", &read_list(servers)),
            },
            has_egress_proxy: !network["egressProxy"].is_null(),
        }
    }

    /// Returns the DNS server with this address, as events show it: without a length.
    pub(crate) fn matching_nameserver(&self, address: IpAddr) -> Option<String> {
        let rule = self.nameservers.longest(|server| server.length_if_covers(address))?;
        Some(rule.shown.split('/').next().unwrap_or_default().to_owned())
    }
}

/// Reads an entry as a prefix. A domain is none.
pub(crate) fn read_entry(entry: &str) -> Option<OraclePrefix> {
    let prefix = OraclePrefix::parse(entry);
    assert!(prefix.is_some() || is_domain(entry), "{entry:?} is neither a prefix nor a domain");
    prefix
}

/// Returns whether an entry is a domain, a wildcard, or `*`.
fn is_domain(entry: &str) -> bool {
    entry == "*" || entry.contains(char::is_alphabetic) && !entry.contains([':', '/'])
}

fn read_list(list: &Value) -> Vec<&str> {
    match list {
        Value::Null => Vec::new(),
        Value::Array(entries) => {
            entries.iter().map(|entry| entry.as_str().expect("an entry is a string")).collect()
        }
        other => panic!("a list is an array, not {other}"),
    }
}

/// The oracle ignores no field that could have a meaning.
fn assert_known_fields(network: &Value) {
    let fields = network.as_object().expect("a network is an object");
    for field in fields.keys() {
        let known = ["allowOut", "denyOut", "dnsServers", "egressProxy"];
        assert!(known.contains(&field.as_str()), "the oracle does not know {field}");
    }
}
