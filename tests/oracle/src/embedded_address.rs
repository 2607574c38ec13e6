//! The IPv4 addresses inside an IPv6 address, which line 5 of the precedence also denies.

use std::net::{IpAddr, Ipv4Addr};

/// Returns the IPv4 address that an IPv6 address embeds, and the number of bits before it:
/// IPv4-compatible and IPv4-mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056), and the server of
/// a Teredo address (RFC 4380).
pub(crate) fn embedded_address(address: IpAddr) -> Option<(Ipv4Addr, u8)> {
    let IpAddr::V6(v6) = address else { return None };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some((address_of(high, low), 96))
        }
        [0x2002, high, low, ..] => Some((address_of(high, low), 16)),
        [0x2001, 0, high, low, ..] => Some((address_of(high, low), 32)),
        _ => None,
    }
}

/// Returns the client of a Teredo address. All of its bits are inverted there.
pub(crate) fn teredo_client(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    match v6.segments() {
        [0x2001, 0, _, _, _, _, high, low] => Some(address_of(!high, !low)),
        _ => None,
    }
}

fn address_of(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}
