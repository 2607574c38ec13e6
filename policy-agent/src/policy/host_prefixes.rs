//! The host's own addresses as line 5 denies them: those that the operator's lists do not contain,
//! bounded in number.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cidr;

/// Maximum number of prefixes for the host's own addresses in a floor.
pub(crate) const MAX_HOST_PREFIXES: usize = 4096;
/// Number of bits by which prefixes are widened per step.
const WIDENING_STEP_BITS: u8 = 4;

/// The prefixes to deny, sorted. `addresses` are those of the host. Omits prefixes that are
/// entirely within `lists`, and loopback and IPv6 link-local addresses: a sandbox cannot reach the host
/// on these from its own link, or needs them for discovery.
pub(super) fn denied_host_prefixes<'a>(
    addresses: &[IpNet],
    lists: impl Iterator<Item = &'a IpNet>,
) -> Vec<IpNet> {
    let lists = aggregate_lists(lists);
    let listed = |net: &IpNet| is_link_scoped(net) || any_covers(&lists, net);
    let mut denied: Vec<IpNet> = addresses.iter().flat_map(split_whole_family).collect();
    denied.retain(|net| !listed(net));
    denied.sort_unstable();
    denied.dedup();
    let mut cut = 0;
    while denied.len() > MAX_HOST_PREFIXES {
        cut += WIDENING_STEP_BITS;
        denied = IpNet::aggregate(&denied.iter().map(|net| widen_prefix(*net, cut)).collect());
    }
    denied
}

/// Splits a /0 prefix into halves, because `0.0.0.0/0` means both families in a list.
fn split_whole_family(net: &IpNet) -> impl Iterator<Item = IpNet> + use<> {
    let net = net.trunc();
    let halves = (net.prefix_len() == 0).then(|| net.subnets(1).into_iter().flatten());
    let whole = halves.is_none().then_some(net);
    whole.into_iter().chain(halves.into_iter().flatten())
}

fn is_link_scoped(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// The same set as non-overlapping prefixes in ascending order.
fn aggregate_lists<'a>(lists: impl Iterator<Item = &'a IpNet>) -> Vec<IpNet> {
    let families = lists.flat_map(|net| {
        let (v4, v6) = cidr::split_families(*net);
        v4.map(IpNet::from).into_iter().chain(v6.map(IpNet::from))
    });
    IpNet::aggregate(&families.collect())
}

fn any_covers(union: &[IpNet], net: &IpNet) -> bool {
    let behind = union.partition_point(|one| one.addr() <= net.addr());
    behind.checked_sub(1).is_some_and(|before| union[before].contains(net))
}

/// Shortens a prefix to at most the family's maximum length minus `cut` bits, but never to /0.
fn widen_prefix(net: IpNet, cut: u8) -> IpNet {
    let longest = net.max_prefix_len().saturating_sub(cut).max(1);
    // Always a valid length for the family.
    IpNet::new(net.addr(), net.prefix_len().min(longest)).map_or(net, |wider| wider.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().expect(net)).collect()
    }

    #[test]
    fn what_a_list_holds_is_left_out() {
        let host = [
            "192.0.2.1/32",
            "10.11.0.1/32",
            "127.0.0.0/8",
            "192.0.2.1/32",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "::1/128",
            "fe80::1/128",
            "2001:db8::1/128",
            "fd00::1/128",
        ];
        let lists = nets(&["10.0.0.0/8", "198.51.100.0/25", "198.51.100.128/25", "203.0.113.0/25"]);
        let lists = [lists, nets(&["fc00::/7"])].concat();
        let expected = nets(&["192.0.2.1/32", "203.0.113.0/24", "2001:db8::1/128"]);
        assert_eq!(denied_host_prefixes(&nets(&host), lists.iter()), expected);
        assert!(
            denied_host_prefixes(&nets(&host), nets(&["0.0.0.0/0"]).iter()).is_empty(),
            "both families"
        );
    }

    #[test]
    fn all_of_a_family_is_no_all_traffic() {
        let none: [IpNet; 0] = [];
        let halves = nets(&["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(denied_host_prefixes(&nets(&["0.0.0.0/0"]), none.iter()), halves);
    }

    #[test]
    fn too_many_are_widened_and_none_is_lost() {
        let none: [IpNet; 0] = [];
        let scattered = |bits: u32| IpAddr::from((0x2000_0000 | bits << 9 | 1).to_be_bytes());
        let mut host: Vec<IpNet> = (0..4096).map(|bits| scattered(bits).into()).collect();
        assert_eq!(denied_host_prefixes(&host, none.iter()), host, "as many as may be");
        host.push(scattered(4096).into());
        host.push("2001:db8::1/128".parse().expect("a net"));
        let widened = denied_host_prefixes(&host, none.iter());
        assert!(widened.len() <= MAX_HOST_PREFIXES, "{}", widened.len());
        for net in &host {
            assert!(widened.iter().any(|wider| wider.contains(net)), "{net}");
        }
        assert!(!widened.iter().any(|wider| wider.contains(&IpAddr::from([1, 1, 1, 1]))));
    }
}
