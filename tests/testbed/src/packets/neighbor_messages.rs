//! IPv6 neighbour discovery (RFC 4861) and multicast listener reports (RFC 2710, RFC 3810).

use std::net::Ipv6Addr;

use super::{ExtensionHeader, IpDatagram, IpPayload, MacAddr};

/// All routers on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers that listen to MLDv2 reports.
pub const ALL_MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// An option of neighbour discovery.
#[derive(Clone, Copy, Debug)]
pub enum NdOption {
    /// The sender's MAC.
    SourceLinkAddress(MacAddr),
    /// The MAC of the target address.
    TargetLinkAddress(MacAddr),
    /// A number that distinguishes a host's own solicitation from another host's (RFC 7527).
    Nonce([u8; 6]),
    /// An option of another type.
    Other(u8),
}

impl NdOption {
    fn encode(self) -> [u8; 8] {
        let (kind, [a, b, c, d, e, f]) = match self {
            Self::SourceLinkAddress(mac) => (1, mac),
            Self::TargetLinkAddress(mac) => (2, mac),
            Self::Nonce(nonce) => (14, nonce),
            Self::Other(kind) => (kind, [0; 6]),
        };
        [kind, 1, a, b, c, d, e, f]
    }
}

/// The solicited-node multicast group of an address.
pub fn solicited_node_group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// "Who has `target`?", sent to the solicited-node group.
pub fn neighbor_solicitation(
    source: Ipv6Addr,
    target: Ipv6Addr,
    options: &[NdOption],
) -> IpDatagram {
    nd_message(135, source, solicited_node_group(target), [0; 4], Some(target), options)
}

/// "`target` is at the MAC in the option", sent to `to`.
pub fn neighbor_advertisement(
    source: Ipv6Addr,
    to: Ipv6Addr,
    target: Ipv6Addr,
    options: &[NdOption],
) -> IpDatagram {
    nd_message(136, source, to, [0x60, 0, 0, 0], Some(target), options)
}

/// "Is there a router?"
pub fn router_solicitation(source: Ipv6Addr, options: &[NdOption]) -> IpDatagram {
    nd_message(133, source, ALL_ROUTERS, [0; 4], None, options)
}

/// "I am a router". No sandbox is one.
pub fn router_advertisement(source: Ipv6Addr, options: &[NdOption]) -> IpDatagram {
    let payload =
        IpPayload::icmpv6(134, 0, [64, 0, 7, 8], &[&[0; 8][..], &encode_options(options)].concat());
    IpDatagram::new(source, ALL_NODES, payload).with_hop_limit(255)
}

/// "There is a better route to `destination`: `target`", sent to `to`.
pub fn icmp_redirect(
    source: Ipv6Addr,
    to: Ipv6Addr,
    target: Ipv6Addr,
    destination: Ipv6Addr,
) -> IpDatagram {
    let data = [target.octets(), destination.octets()].concat();
    IpDatagram::new(source, to, IpPayload::icmpv6(137, 0, [0; 4], &data)).with_hop_limit(255)
}

/// An MLDv2 report that the sender listens to one group.
pub fn listener_report(source: Ipv6Addr, group: Ipv6Addr) -> IpDatagram {
    let record = [&[4, 0, 0, 0][..], &group.octets()].concat();
    let payload = IpPayload::icmpv6(143, 0, [0, 0, 0, 1], &record);
    IpDatagram::new(source, ALL_MLD_ROUTERS, payload)
        .with_hop_limit(1)
        .with_extension(ExtensionHeader::hop_by_hop())
}

/// An MLDv1 query, which only routers send.
pub fn listener_query(source: Ipv6Addr) -> IpDatagram {
    let payload = IpPayload::icmpv6(130, 0, [0; 4], &[0; 16]);
    IpDatagram::new(source, ALL_NODES, payload)
        .with_hop_limit(1)
        .with_extension(ExtensionHeader::hop_by_hop())
}

fn nd_message(
    kind: u8,
    source: Ipv6Addr,
    to: Ipv6Addr,
    rest: [u8; 4],
    target: Option<Ipv6Addr>,
    options: &[NdOption],
) -> IpDatagram {
    let mut data = target.map_or(Vec::new(), |target| target.octets().to_vec());
    data.extend(encode_options(options));
    IpDatagram::new(source, to, IpPayload::icmpv6(kind, 0, rest, &data)).with_hop_limit(255)
}

fn encode_options(options: &[NdOption]) -> Vec<u8> {
    options.iter().flat_map(|option| option.encode()).collect()
}
