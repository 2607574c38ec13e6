//! Random prefixes that overlap, and random addresses near their boundaries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::IpNet;

/// The base addresses of most prefixes. Prefixes must overlap to test anything.
const ROOT_ADDRESSES: [&str; 14] = [
    "203.0.113.0",
    "198.51.100.7",
    "10.1.2.3",
    "169.254.169.254",
    "8.8.8.8",
    "255.255.255.255",
    "127.255.255.255",
    "0.0.0.1",
    "2001:db8::1",
    "2001:0:808:808::1",
    "64:ff9b::101:101",
    "2002:808:808::1",
    "fd00:1::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];

/// A random prefix.
pub(crate) fn random_net(rng: &mut Rng) -> IpNet {
    let address = match rng.u8(..8) {
        0 => IpAddr::from(rng.u32(..).to_be_bytes()),
        1 => IpAddr::from(rng.u128(..).to_be_bytes()),
        _ => {
            let root = random_root(rng);
            flip_some_bits(rng, root)
        }
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    // Frequent short prefixes would cover all others.
    let length = match rng.u8(..8) {
        0 => rng.u8(1..=bits),
        1 => bits,
        _ => rng.u8(bits / 4..=bits),
    };
    IpNet::new(address, length).expect("a length of the family").trunc()
}

/// A random address, near the boundary of one of the prefixes if possible.
pub(crate) fn address_near(rng: &mut Rng, nets: &[IpNet]) -> IpAddr {
    match (rng.u8(..10), nets) {
        (0, _) | (_, []) => random_root(rng),
        (1, _) => random_net(rng).addr(),
        (_, nets) => {
            let picked = nets[rng.usize(..nets.len())];
            let (first, last) = net_bounds(picked);
            let bits = match rng.u8(..6) {
                0 => first,
                1 => last,
                2 => first.wrapping_sub(1),
                3 => last.wrapping_add(1),
                _ => rng.u128(first..=last),
            };
            let address = from_bits(picked.addr().is_ipv4(), bits);
            if rng.u8(..4) == 0 { embed_in_ipv6(rng, address) } else { address }
        }
    }
}

fn random_root(rng: &mut Rng) -> IpAddr {
    ROOT_ADDRESSES[rng.usize(..ROOT_ADDRESSES.len())].parse().expect("an address")
}

/// Flips some bits of the address.
fn flip_some_bits(rng: &mut Rng, address: IpAddr) -> IpAddr {
    let mut bits = to_bits(address);
    let width = if address.is_ipv4() { 32 } else { 128 };
    for _ in 0..rng.u8(..3) {
        bits ^= 1 << rng.u32(..width);
    }
    from_bits(address.is_ipv4(), bits)
}

/// Embeds an IPv4 address in an IPv6 address. IPv6 addresses stay unchanged.
fn embed_in_ipv6(rng: &mut Rng, address: IpAddr) -> IpAddr {
    let IpAddr::V4(v4) = address else { return address };
    let bits = u128::from(v4.to_bits());
    let server = u128::from(rng.u32(..)) << 64;
    let bits = match rng.u8(..6) {
        0 => 0xffff << 32 | bits,
        1 => bits,
        2 => 0x0064_ff9b << 96 | bits,
        3 => 0x2002 << 112 | bits << 80 | u128::from(rng.u64(..)),
        4 => 0x2001_0000 << 96 | bits << 64 | u128::from(rng.u64(..)),
        _ => 0x2001_0000 << 96 | server | (bits ^ 0xffff_ffff),
    };
    Ipv6Addr::from_bits(bits).into()
}

fn net_bounds(net: IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (net.network().to_bits().into(), net.broadcast().to_bits().into()),
        IpNet::V6(net) => (net.network().to_bits(), net.broadcast().to_bits()),
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_bits(v4: bool, bits: u128) -> IpAddr {
    if v4 {
        Ipv4Addr::from_bits((bits & 0xffff_ffff) as u32).into()
    } else {
        Ipv6Addr::from_bits(bits).into()
    }
}
