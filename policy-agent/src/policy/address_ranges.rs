//! Sets of addresses that can be tested for containing or overlapping a prefix.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cidr;

/// Ranges from first to last address, sorted and without overlaps.
pub(super) struct AddressRanges(Vec<(IpAddr, IpAddr)>);

impl AddressRanges {
    /// Whether every address of a prefix is in the set. Adjacent ranges are not merged, so the
    /// result may be `false` for a prefix that spans two of them.
    pub(super) fn contains_net(&self, net: &IpNet) -> bool {
        self.range_at_start_of(net).is_some_and(|(_, last)| net.broadcast() <= *last)
    }

    /// Whether any address of a prefix is in the set.
    pub(super) fn overlaps_net(&self, net: &IpNet) -> bool {
        self.range_at_end_of(net).is_some_and(|(_, last)| *last >= net.network())
    }

    /// The last range that starts at or before the start of the prefix.
    fn range_at_start_of(&self, net: &IpNet) -> Option<&(IpAddr, IpAddr)> {
        let place = self.0.partition_point(|(first, _)| *first <= net.network());
        self.0.get(place.checked_sub(1)?)
    }

    /// The last range that starts at or before the end of the prefix.
    fn range_at_end_of(&self, net: &IpNet) -> Option<&(IpAddr, IpAddr)> {
        let place = self.0.partition_point(|(first, _)| *first <= net.broadcast());
        self.0.get(place.checked_sub(1)?)
    }
}

impl FromIterator<IpNet> for AddressRanges {
    /// As everywhere, `0.0.0.0/0` means both families.
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let families = nets.into_iter().flat_map(|net| {
            let (v4, v6) = cidr::split_families(net.trunc());
            v4.map(IpNet::V4).into_iter().chain(v6.map(IpNet::V6))
        });
        let mut ranges: Vec<_> = families.map(|net| (net.network(), net.broadcast())).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_lie_inside_or_meet() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "fc00::/7"];
        let set: AddressRanges = nets.iter().map(|net| net.parse::<IpNet>().expect(net)).collect();
        for (net, inside, meets) in [
            ("10.0.0.0/8", true, true),
            ("10.255.255.255/32", true, true),
            ("8.0.0.0/5", false, true),
            ("11.0.0.0/8", false, false),
            ("9.0.0.0/8", false, false),
            ("192.0.2.0/24", false, true),
            ("192.0.2.7/32", true, true),
            ("192.0.2.8/32", false, false),
            ("0.0.0.0/0", false, true),
            ("fd00::1/128", true, true),
            ("2001:db8::/32", false, false),
        ] {
            let net: IpNet = net.parse().expect(net);
            assert_eq!((set.contains_net(&net), set.overlaps_net(&net)), (inside, meets), "{net}");
        }
        let everything: AddressRanges = [IpNet::default()].into_iter().collect();
        assert!(everything.contains_net(&"2001:db8::/32".parse().expect("a CIDR")));
    }
}
