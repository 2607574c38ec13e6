//! Compiles a policy and the floor to one table per address family, so that a single longest-prefix
//! match implements lines 4 to 9 of the precedence.
//!
//! A prefix within one of higher rank can never decide, but would win the match, so it is omitted.
//! The rank of the remaining prefixes increases with nesting, so the longest match has the highest
//! rank.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy_common::{
    reason::Reason,
    verdict::{NO_RULE, VERDICT_REDIRECT_TCP, VERDICT_REDIRECT_WEB, Verdict},
};
use sha2::{Digest, Sha256};

use super::{Floor, Policy, cidr, embedded_ipv4, rule_reference, sandbox_policy::AllowOutEntry};

/// The tables of one policy, sorted by prefix. Both contain the /0 prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    /// IPv4. `Verdict::policy_id` is 0 in all entries. It is set when the kernel maps are filled.
    pub ipv4_entries: Vec<(Ipv4Net, Verdict)>,
    /// IPv6.
    pub ipv6_entries: Vec<(Ipv6Net, Verdict)>,
}

/// Compiles a policy and a floor.
#[must_use]
pub fn compile_policy(policy: &Policy, floor: &Floor) -> CompiledPolicy {
    let mut lists = RankedPrefixes::default();
    lists.add_floor(floor);
    lists.add_policy(policy);
    let verdict = |entry: RankedRule| Verdict {
        reason_code: compiled_reason(policy, entry.reason) as u8,
        flags: verdict_flags(policy, entry),
        policy_id: 0,
        rule_index: entry.rule,
    };
    let v4 = drop_covered(lists.ipv4);
    let v6 = drop_covered(lists.ipv6);
    CompiledPolicy {
        ipv4_entries: v4.into_iter().map(|(net, entry)| (net, verdict(entry))).collect(),
        ipv6_entries: v6.into_iter().map(|(net, entry)| (net, verdict(entry))).collect(),
    }
}

/// The reason in the table. What an observed policy denies passes.
const fn compiled_reason(policy: &Policy, reason: Reason) -> Reason {
    match reason {
        Reason::DenyOut if policy.is_observed() => Reason::WouldDeny,
        reason => reason,
    }
}

/// Flags for TCP. Line 7 precedes lines 8 and 9 and the host's own addresses. The tunnel carries
/// what lines 6 and 9 allow.
fn verdict_flags(policy: &Policy, RankedRule { rank, reason, .. }: RankedRule) -> u8 {
    let names = policy.has_domains() && (rank == HOST_RANK || matches!(reason.line(), 8 | 9));
    let passes = compiled_reason(policy, reason).passes();
    let tunnel = policy.egress_proxy().is_some() && passes && matches!(reason.line(), 6 | 8 | 9);
    (if names { VERDICT_REDIRECT_WEB } else { 0 }) | (if tunnel { VERDICT_REDIRECT_TCP } else { 0 })
}

/// The rank of the host's own addresses, after the lists of line 5.
const HOST_RANK: u8 = 2;

/// The origin of a prefix. The derived order is by rank, then by index in the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RankedRule {
    /// 0 is the highest.
    rank: u8,
    rule: u32,
    reason: Reason,
}

impl RankedRule {
    fn new(reason: Reason, rule: u32) -> Self {
        // Ranks follow the lines. Line 6 consists of `allowOut` and the DNS servers, and `allowOut`
        // is reported first.
        let rank = match reason {
            Reason::PlatformAllow => 0,
            Reason::PlatformDeny => 1,
            Reason::AllowOut => 3,
            Reason::DnsServer => 4,
            Reason::DenyOut => 5,
            _ => 6,
        };
        Self { rank, rule, reason }
    }

    /// The rule of line 5 with this index, which is one of the host's own addresses.
    fn host_address(rule: u32) -> Self {
        Self { rank: HOST_RANK, rule, reason: Reason::PlatformDeny }
    }
}

/// All prefixes by family, not yet sorted.
#[derive(Default)]
struct RankedPrefixes {
    ipv4: Vec<(Ipv4Net, RankedRule)>,
    ipv6: Vec<(Ipv6Net, RankedRule)>,
}

impl RankedPrefixes {
    fn add_floor(&mut self, floor: &Floor) {
        self.add_list(Reason::PlatformAllow, floor.allow.iter().copied());
        for (place, net) in floor.deny.iter().chain(&*floor.deny_add).enumerate() {
            self.add_denied(
                *net,
                RankedRule::new(Reason::PlatformDeny, rule_reference::rule_index(place)),
            );
        }
        for (place, net) in floor.host_addresses.iter().enumerate() {
            self.add_denied(
                *net,
                RankedRule::host_address(rule_reference::rule_index(
                    floor.first_host_rule() + place,
                )),
            );
        }
    }

    /// Adds a prefix of line 5, which also applies to embedded IPv4 addresses.
    fn add_denied(&mut self, net: IpNet, entry: RankedRule) {
        self.add(net, entry);
        // All traffic already covers every IPv6 address.
        if let IpNet::V4(v4) = net
            && !cidr::is_all_traffic(&net)
        {
            self.ipv6.extend(embedded_ipv4::embedding_prefixes(v4).map(|net| (net, entry)));
        }
    }

    fn add_policy(&mut self, policy: &Policy) {
        for (place, target) in policy.allow_out().iter().enumerate() {
            if let AllowOutEntry::Network(net) = target {
                self.add(
                    *net,
                    RankedRule::new(Reason::AllowOut, rule_reference::rule_index(place)),
                );
            }
        }
        if policy.uses_default_nameserver() {
            for address in policy.nameservers() {
                self.add((*address).into(), RankedRule::new(Reason::DnsServer, NO_RULE));
            }
        } else {
            let nets = policy.nameservers().iter().map(|address| (*address).into());
            self.add_list(Reason::DnsServer, nets);
        }
        self.add_list(Reason::DenyOut, policy.deny_out().iter().copied());
        let otherwise = if policy.allows_internet() { Reason::NoRule } else { Reason::DenyOut };
        self.add(IpNet::default(), RankedRule::new(otherwise, NO_RULE));
    }

    fn add_list(&mut self, reason: Reason, nets: impl Iterator<Item = IpNet>) {
        for (place, net) in nets.enumerate() {
            self.add(net, RankedRule::new(reason, rule_reference::rule_index(place)));
        }
    }

    fn add(&mut self, net: IpNet, entry: RankedRule) {
        let (v4, v6) = cidr::split_families(net.trunc());
        self.ipv4.extend(v4.map(|net| (net, entry)));
        self.ipv6.extend(v6.map(|net| (net, entry)));
    }
}

/// A prefix of one family. The order sorts every prefix after those that cover it.
trait PrefixCover: Copy + Ord {
    fn covers(&self, other: &Self) -> bool;
}

impl PrefixCover for Ipv4Net {
    fn covers(&self, other: &Self) -> bool {
        self.contains(other)
    }
}

impl PrefixCover for Ipv6Net {
    fn covers(&self, other: &Self) -> bool {
        self.contains(other)
    }
}

/// Drops prefixes that are covered by one of higher rank. Of equal prefixes, keeps only the first
/// of the highest rank. O(n log n).
fn drop_covered<N: PrefixCover>(mut prefixes: Vec<(N, RankedRule)>) -> Vec<(N, RankedRule)> {
    prefixes.sort_unstable();
    // The kept prefixes that enclose the current one, innermost last. Each was kept because its
    // rank is at least that of its parent, so the innermost has the highest rank.
    let mut around: Vec<(N, RankedRule)> = Vec::new();
    prefixes.retain(|(net, entry)| {
        while around.pop_if(|(outer, _)| !outer.covers(net)).is_some() {}
        let keep =
            around.last().is_none_or(|(outer, decides)| outer != net && entry.rank <= decides.rank);
        if keep {
            around.push((*net, *entry));
        }
        keep
    });
    prefixes
}

impl CompiledPolicy {
    /// Half of a SHA-256 of the tables, stable across restarts. Sandboxes whose users do not trust
    /// each other share tables by digest, so it must be collision-resistant against chosen
    /// policies.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        let mut bytes =
            Vec::with_capacity(12 * self.ipv4_entries.len() + 24 * self.ipv6_entries.len() + 8);
        // The number of IPv4 entries marks the start of IPv6.
        bytes.extend(self.ipv4_entries.len().to_le_bytes());
        for (net, verdict) in &self.ipv4_entries {
            bytes.extend(net.network().octets());
            append_entry(&mut bytes, net.prefix_len(), verdict);
        }
        for (net, verdict) in &self.ipv6_entries {
            bytes.extend(net.network().octets());
            append_entry(&mut bytes, net.prefix_len(), verdict);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(&bytes)[..16]);
        digest
    }
}

fn append_entry(bytes: &mut Vec<u8>, length: u8, verdict: &Verdict) {
    bytes.extend([length, verdict.reason_code, verdict.flags]);
    bytes.extend(verdict.rule_index.to_le_bytes());
}

#[cfg(test)]
mod tests;
