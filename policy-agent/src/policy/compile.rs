//! From a policy and the floor to one table per address family, such that one longest-prefix match
//! answers lines 4 to 9 of the precedence.
//!
//! A prefix that lies inside one of higher rank can never decide, but it would win the match, so
//! it is left out. What stays is nested by rising rank: the longest match has the highest rank.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy_common::{
    reason::Reason,
    verdict::{NO_RULE, VERDICT_REDIRECT_TCP, VERDICT_REDIRECT_WEB, Verdict},
};
use sha2::{Digest, Sha256};

use super::{Floor, Policy, cidr, embedded_ipv4, rule_reference, sandbox_policy::AllowOutEntry};

/// The tables of one policy, in the order of their prefixes. Both hold the /0 prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    /// IPv4. `Verdict::policy` is 0 everywhere: who fills the kernel's table sets it.
    pub ipv4_entries: Vec<(Ipv4Net, Verdict)>,
    /// IPv6.
    pub ipv6_entries: Vec<(Ipv6Net, Verdict)>,
}

/// Compiles a policy under a floor.
#[must_use]
pub fn compile_policy(policy: &Policy, floor: &Floor) -> CompiledPolicy {
    let mut lists = RankedPrefixes::default();
    lists.add_floor(floor);
    lists.add_policy(policy);
    let verdict = |entry: RankedRule| Verdict {
        reason_code: entry.reason as u8,
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

/// What TCP needs beyond the verdict: line 7 stands before lines 8 and 9 and before the host's own
/// addresses, and the tunnel carries what lines 6 and 9 let out.
fn verdict_flags(policy: &Policy, RankedRule { rank, reason, .. }: RankedRule) -> u8 {
    let names = policy.has_domains() && (rank == HOST_RANK || matches!(reason.line(), 8 | 9));
    let tunnel = policy.egress_proxy().is_some() && matches!(reason.line(), 6 | 9);
    (if names { VERDICT_REDIRECT_WEB } else { 0 }) | (if tunnel { VERDICT_REDIRECT_TCP } else { 0 })
}

/// The rank of the host's own addresses, behind the lists of line 5.
const HOST_RANK: u8 = 2;

/// Why a prefix is in the table. The derived order is by rank, then by place in its list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RankedRule {
    /// 0 is the highest.
    rank: u8,
    rule: u32,
    reason: Reason,
}

impl RankedRule {
    fn new(reason: Reason, rule: u32) -> Self {
        // By line; `allowOut` and the DNS servers share line 6, and `allowOut` is named first.
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

    /// The host's own address that is this rule of line 5.
    fn host_address(rule: u32) -> Self {
        Self { rank: HOST_RANK, rule, reason: Reason::PlatformDeny }
    }
}

/// All prefixes of both families, not yet in order.
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

    /// Line 5 looks inside IPv6 addresses.
    fn add_denied(&mut self, net: IpNet, entry: RankedRule) {
        self.add(net, entry);
        // All traffic covers every IPv6 address already.
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

/// A prefix of one family. Its order puts every prefix behind those that cover it.
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

/// Leaves out each prefix that one of higher rank covers, and of equal prefixes all but the first
/// of the highest rank. O(n log n).
fn drop_covered<N: PrefixCover>(mut prefixes: Vec<(N, RankedRule)>) -> Vec<(N, RankedRule)> {
    prefixes.sort_unstable();
    // The kept prefixes around the current one, the innermost last. Each was kept because its rank
    // is at least that of the one around it, so the innermost has the highest.
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
    /// Equal for equal tables, and only for them: tables are shared by digest between sandboxes
    /// whose users do not trust each other, so it has to withstand chosen policies. Half of a
    /// SHA-256, stable across restarts.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        let mut bytes =
            Vec::with_capacity(12 * self.ipv4_entries.len() + 24 * self.ipv6_entries.len() + 8);
        // The number of IPv4 entries tells where IPv6 starts.
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
