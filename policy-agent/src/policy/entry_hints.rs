//! Suggestions for entries that are not an address, CIDR or name, such as a range, a URL or a host
//! with a port. Only used for rejected entries, so they never affect a decision.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::{DomainOrIp, DomainPattern, cidr::is_sdk_constant, host_and_port::HostAndPort};

/// Maximum number of CIDRs that an error lists.
const MAX_LISTED_CIDRS: usize = 16;

/// Explains why a name is rejected where only addresses are allowed.
pub(super) const ADDRESSES_ONLY_HINT: &str =
    "a name; only IP addresses and CIDRs can stand here, since packets carry no names";

/// The error about an entry of a list that contains only addresses, if the mistake is a known one.
/// `about_names` explains why a name is not allowed.
pub(super) fn address_entry_hint(entry: &str, about_names: &str) -> Option<String> {
    if let Some(problem) = range_hint(entry).or_else(|| octet_wildcard_hint(entry)) {
        return Some(problem);
    }
    match host_in_entry(entry).filter(|_| !is_sdk_constant(entry))? {
        WrittenHost::Domain(_) => Some(about_names.to_owned()),
        address @ WrittenHost::Address(_) => Some(write_alone_hint(&address)),
    }
}

/// The error about an entry of a list that contains addresses and names, if the mistake is a known
/// one.
pub(super) fn allow_out_entry_hint(entry: &str) -> Option<String> {
    if let Some(problem) = range_hint(entry).or_else(|| octet_wildcard_hint(entry)) {
        return Some(problem);
    }
    host_in_entry(entry)
        .filter(|_| DomainPattern::parse(entry).is_err())
        .map(|host| write_alone_hint(&host))
}

/// A host in an entry.
enum WrittenHost {
    Address(IpAddr),
    Domain(DomainPattern),
}

impl fmt::Display for WrittenHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Domain(pattern) => pattern.fmt(f),
        }
    }
}

/// Parses the host in an entry. A wildcard is an additional first label of a name.
fn host_in_entry(entry: &str) -> Option<WrittenHost> {
    if entry == "*" {
        return Some(WrittenHost::Domain(DomainPattern::AnyDomain));
    }
    let (scheme, rest) = entry.split_once("://").unwrap_or(("", entry));
    let bare = rest.strip_prefix("*.");
    let text = match (bare, scheme) {
        (Some(rest), "") => rest.to_owned(),
        (Some(rest), scheme) => format!("{scheme}://{rest}"),
        (None, _) => entry.to_owned(),
    };
    let endpoint = HostAndPort::parse_host_or_url(&text).ok()?;
    match endpoint.host {
        // Otherwise a prefix length follows, about which there is a more specific error.
        DomainOrIp::Address(address) => {
            let more = !scheme.is_empty() || endpoint.port.is_some() || entry.starts_with('[');
            (bare.is_none() && more).then_some(WrittenHost::Address(address))
        }
        DomainOrIp::Domain(name) => {
            let pattern = if bare.is_some() { format!("*.{name}") } else { name.to_string() };
            DomainPattern::parse(&pattern).ok().map(WrittenHost::Domain)
        }
    }
}

fn write_alone_hint(host: &WrittenHost) -> String {
    match host {
        WrittenHost::Address(_) => {
            format!("write {host} alone; an address holds for every protocol and port")
        }
        WrittenHost::Domain(_) => {
            format!("write {host} alone; a name holds on TCP ports 80 and 443")
        }
    }
}

/// `192.0.2.*`
fn octet_wildcard_hint(entry: &str) -> Option<String> {
    let octets: Vec<&str> = entry.split('.').collect();
    let known = octets.iter().take_while(|octet| **octet != "*").count();
    let rest_is_open = octets[known..].iter().all(|octet| *octet == "*");
    if octets.len() > 4 || known == 0 || known >= octets.len() || !rest_is_open {
        return None;
    }
    let mut address = [0; 4];
    for (place, octet) in octets[..known].iter().enumerate() {
        address[place] = octet.parse().ok()?;
    }
    let length = 8 * known;
    Some(format!("a wildcard stands in names only; write {}/{length}", Ipv4Addr::from(address)))
}

fn range_hint(entry: &str) -> Option<String> {
    let (first, last) = parse_range(entry)?;
    if last < first {
        return Some(
            "a range that ends before it begins; write CIDRs, like 10.0.0.0/24".to_owned(),
        );
    }
    Some(format!("a range; write CIDRs instead: {}", join_cidrs(&cidrs_of_range(first, last)?)))
}

/// The CIDRs of a range like `192.0.2.1-192.0.2.9`.
pub(super) fn parse_address_range(text: &str) -> Option<Vec<IpNet>> {
    let (first, last) = parse_range(text)?;
    (first <= last).then(|| cidrs_of_range(first, last)).flatten()
}

/// `192.0.2.1-192.0.2.9`, and `192.0.2.1-9`
fn parse_range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = text.split_once(['-', '–'])?;
    let first: IpAddr = first.trim().parse().ok()?;
    Some((first, parse_range_end(first, last.trim())?))
}

fn parse_range_end(first: IpAddr, last: &str) -> Option<IpAddr> {
    match (last.parse(), first) {
        (Ok(last), _) => (IpAddr::is_ipv4(&last) == first.is_ipv4()).then_some(last),
        (Err(_), IpAddr::V4(first)) => {
            let [a, b, c, _] = first.octets();
            Some(Ipv4Addr::new(a, b, c, last.parse().ok()?).into())
        }
        (Err(_), IpAddr::V6(_)) => None,
    }
}

/// The smallest set of CIDRs that covers a range. None of them contains the unspecified address,
/// which entries must not contain, unless it covers everything.
fn cidrs_of_range(first: IpAddr, last: IpAddr) -> Option<Vec<IpNet>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let all = last == Ipv4Addr::BROADCAST;
            let skip = first.is_unspecified() && !last.is_unspecified() && !all;
            let first = if skip { Ipv4Addr::from_bits(1) } else { first };
            Some(Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let all = last.to_bits() == u128::MAX;
            let skip = first.is_unspecified() && !last.is_unspecified() && !all;
            let first = if skip { Ipv6Addr::from_bits(1) } else { first };
            Some(Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        _ => None,
    }
}

fn join_cidrs(nets: &[IpNet]) -> String {
    let shown: Vec<String> = nets.iter().take(MAX_LISTED_CIDRS).map(ToString::to_string).collect();
    match nets.len().saturating_sub(MAX_LISTED_CIDRS) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cidr;
    use super::*;

    #[test]
    fn what_to_write_instead() {
        for (entry, advice) in [
            ("github.com:443", "write github.com alone; a name holds on TCP ports 80 and 443"),
            ("https://github.com/x", "write github.com alone; a name holds on TCP ports 80"),
            ("https://user:pw@github.com:8443", "write github.com alone"),
            ("github.com/", "write github.com alone"),
            ("GitHub.com:443", "write github.com alone"),
            ("*.x.com/path", "write *.x.com alone; a name holds"),
            ("*.x.com:443", "write *.x.com alone; a name holds"),
            ("https://*.x.com", "write *.x.com alone; a name holds"),
            ("1.2.3.4:443", "write 1.2.3.4 alone; an address holds for every protocol and port"),
            ("http://1.2.3.4/x", "write 1.2.3.4 alone; an address holds"),
            ("[::1]:80", "write ::1 alone; an address holds for every protocol and port"),
            ("[2001:db8::1]", "write 2001:db8::1 alone; an address holds"),
            ("10.0.0.*", "a wildcard stands in names only; write 10.0.0.0/24"),
            ("10.*", "a wildcard stands in names only; write 10.0.0.0/8"),
            ("10.0.*.*", "a wildcard stands in names only; write 10.0.0.0/16"),
            (
                "10.0.0.1-10.0.0.9",
                "a range; write CIDRs instead: 10.0.0.1/32, 10.0.0.2/31, 10.0.0.4/30, 10.0.0.8/31",
            ),
            ("10.0.0.0-255", "a range; write CIDRs instead: 10.0.0.0/24"),
            ("2001:db8::-2001:db8::1", "a range; write CIDRs instead: 2001:db8::/127"),
            ("0.0.0.0-255.255.255.255", "a range; write CIDRs instead: 0.0.0.0/0"),
            ("0.0.0.0-0.0.0.2", "a range; write CIDRs instead: 0.0.0.1/32, 0.0.0.2/32"),
            ("10.0.0.9-10.0.0.1", "a range that ends before it begins"),
        ] {
            let said = allow_out_entry_hint(entry).unwrap_or_else(|| panic!("{entry}: nothing"));
            assert!(said.starts_with(advice), "{entry}: {said}");
        }
        for entry in ["github.com", "*.github.com", "1.2.3.4", "::1", "10.0.0.0/33", "a b", "", "*"]
        {
            assert_eq!(allow_out_entry_hint(entry), None, "{entry}");
        }
    }

    #[test]
    fn a_name_is_told_apart_where_only_addresses_stand() {
        for entry in ["github.com", "github.com:443", "https://github.com", "*.github.com", "*"] {
            assert_eq!(
                address_entry_hint(entry, ADDRESSES_ONLY_HINT).as_deref(),
                Some(ADDRESSES_ONLY_HINT),
                "{entry}"
            );
        }
        for entry in ["1.2.3.4", "ALL_TRAFFIC", "a b"] {
            assert_eq!(address_entry_hint(entry, ADDRESSES_ONLY_HINT), None, "{entry}");
        }
        let port = address_entry_hint("1.2.3.4:53", ADDRESSES_ONLY_HINT).expect("a port");
        assert!(port.starts_with("write 1.2.3.4 alone"), "{port}");
    }

    #[test]
    fn the_cidrs_hold_the_range_and_nothing_else() {
        for (first, last) in [
            ("10.0.0.1", "10.3.9.200"),
            ("0.0.0.1", "255.255.255.254"),
            ("203.0.113.7", "203.0.113.7"),
            ("128.0.0.0", "255.255.255.255"),
        ] {
            let (first, last) = (first.parse().expect(first), last.parse().expect(last));
            let mut next = first;
            let nets = cidrs_of_range(first, last).expect("one family");
            for net in &nets {
                assert_eq!(net.network(), next, "no gap");
                assert!(
                    cidr::parse_sandbox_cidr(&net.to_string(), ADDRESSES_ONLY_HINT).is_ok(),
                    "{net}"
                );
                let IpAddr::V4(end) = net.broadcast() else { panic!("{net}") };
                next = Ipv4Addr::from_bits(end.to_bits().wrapping_add(1)).into();
            }
            assert_eq!(nets.last().map(IpNet::broadcast), Some(last));
        }
        let long = range_hint("0.0.0.1-255.255.255.254").expect("a range");
        assert!(long.ends_with(" and 46 more"), "{long}");
    }
}
