//! An address or CIDR of a list.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A prefix of one family. `0.0.0.0/0` covers both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OraclePrefix {
    is_v6: bool,
    /// The first address. The highest bit is the address's first bit, in both families.
    bits: u128,
    length: u8,
}

impl OraclePrefix {
    /// Reads an entry of a list: host bits are cleared, and an IPv4-mapped entry means IPv4.
    pub(crate) fn parse(entry: &str) -> Option<Self> {
        let (address, length) = match entry.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
            None => (entry, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let length = length.unwrap_or(address_width(address.is_ipv6()));
        let skipped = address_width(address.is_ipv6()) - address_width(is_v6(address));
        Self::new(address.to_canonical(), length.checked_sub(skipped)?)
    }

    fn new(address: IpAddr, length: u8) -> Option<Self> {
        let is_v6 = address.is_ipv6();
        let bits = aligned_bits(address) & leading_ones(length);
        (length <= address_width(is_v6)).then_some(Self { is_v6, bits, length })
    }

    /// Returns the length of the prefix if it covers the address.
    pub(crate) fn length_if_covers(self, address: IpAddr) -> Option<u8> {
        let inside = self.is_v6 == address.is_ipv6()
            && aligned_bits(address) & leading_ones(self.length) == self.bits;
        (self.is_all_traffic() || inside).then_some(self.length)
    }

    /// Returns whether every address of another prefix is in this one.
    pub(crate) fn contains(self, other: Self) -> bool {
        let inside = self.is_v6 == other.is_v6
            && self.length <= other.length
            && other.bits & leading_ones(self.length) == self.bits;
        self.is_all_traffic() || inside
    }

    /// Returns both halves, unless the prefix is a single address.
    pub(crate) fn halves(self) -> Option<[Self; 2]> {
        if self.length == address_width(self.is_v6) {
            return None;
        }
        let (length, upper) = (self.length + 1, self.bits | 1 << (127 - self.length));
        Some([self.bits, upper].map(|bits| Self { bits, length, ..self }))
    }

    pub(crate) fn is_v6(self) -> bool {
        self.is_v6
    }

    /// Returns the first address.
    pub(crate) fn address(self) -> IpAddr {
        let octets = self.bits.to_be_bytes();
        match self.is_v6 {
            true => Ipv6Addr::from(octets).into(),
            false => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
        }
    }

    fn is_all_traffic(self) -> bool {
        !self.is_v6 && self.length == 0
    }
}

impl fmt::Display for OraclePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

/// Returns whether an address is IPv6 and not IPv4-mapped.
fn is_v6(address: IpAddr) -> bool {
    address.to_canonical().is_ipv6()
}

const fn address_width(is_v6: bool) -> u8 {
    if is_v6 { 128 } else { 32 }
}

fn aligned_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn leading_ones(count: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(count.min(128))).unwrap_or(0)
}
