//! The payload of an IP datagram: TCP, UDP, ICMP, or arbitrary bytes.

use std::net::IpAddr;

use etherparse::{TcpHeader, ip_number};

/// TCP flags as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// Closes one direction.
    pub const FIN: Self = Self(0x01);
    /// Opens a connection.
    pub const SYN: Self = Self(0x02);
    /// Aborts a connection.
    pub const RST: Self = Self(0x04);
    /// Acknowledges data.
    pub const ACK: Self = Self(0x10);
    /// Accepts a connection.
    pub const SYN_ACK: Self = Self(0x12);
}

/// The payload of an IP datagram. The checksum is computed once the addresses are known.
#[derive(Clone, Debug)]
pub struct IpPayload {
    /// IP protocol number.
    pub protocol: u8,
    /// The bytes, with a zero checksum.
    pub bytes: Vec<u8>,
    /// The offset of the checksum, if there is one.
    checksum_offset: Option<usize>,
}

impl IpPayload {
    /// A TCP segment without options.
    pub fn tcp(source: u16, destination: u16, flags: TcpFlags) -> Self {
        let mut header =
            TcpHeader::new(source, destination, 0x0102_0304, 0xfaf0).to_bytes().to_vec();
        header[8..12].copy_from_slice(&0x1112_1314_u32.to_be_bytes());
        header[13] = flags.0;
        Self { protocol: ip_number::TCP.0, bytes: header, checksum_offset: Some(16) }
    }

    /// A SYN segment.
    pub fn syn(source: u16, destination: u16) -> Self {
        Self::tcp(source, destination, TcpFlags::SYN)
    }

    /// A UDP datagram.
    pub fn udp(source: u16, destination: u16, data: &[u8]) -> Self {
        let length = u16::try_from(8 + data.len()).expect("fits into a datagram");
        let words = [source, destination, length, 0].map(u16::to_be_bytes);
        let bytes = [words.as_flattened(), data].concat();
        Self { protocol: ip_number::UDP.0, bytes, checksum_offset: Some(6) }
    }

    /// An ICMPv4 message: type, code, the rest of the header, data.
    pub fn icmp(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Self {
        let bytes = [&[kind, code, 0, 0], &rest[..], data].concat();
        Self { protocol: ip_number::ICMP.0, bytes, checksum_offset: Some(2) }
    }

    /// An ICMPv6 message.
    pub fn icmpv6(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Self {
        Self { protocol: ip_number::IPV6_ICMP.0, ..Self::icmp(kind, code, rest, data) }
    }

    /// An echo request or reply of the address's family.
    pub fn icmp_echo(to: IpAddr, reply: bool, identifier: u16, data: &[u8]) -> Self {
        let [a, b] = identifier.to_be_bytes();
        let rest = [a, b, 0, 1];
        match (to, reply) {
            (IpAddr::V4(_), false) => Self::icmp(8, 0, rest, data),
            (IpAddr::V4(_), true) => Self::icmp(0, 0, rest, data),
            (IpAddr::V6(_), false) => Self::icmpv6(128, 0, rest, data),
            (IpAddr::V6(_), true) => Self::icmpv6(129, 0, rest, data),
        }
    }

    /// An ICMP error "port unreachable" that quotes a packet, of the address's family.
    pub fn icmp_unreachable(to: IpAddr, about: &[u8]) -> Self {
        match to {
            IpAddr::V4(_) => Self::icmp(3, 3, [0; 4], about),
            IpAddr::V6(_) => Self::icmpv6(1, 4, [0; 4], about),
        }
    }

    /// A payload of any protocol.
    pub fn raw(protocol: u8, bytes: &[u8]) -> Self {
        Self { protocol, bytes: bytes.to_vec(), checksum_offset: None }
    }

    /// Appends data.
    pub fn with_data(mut self, data: &[u8]) -> Self {
        self.bytes.extend(data);
        self
    }

    /// Overwrites the bytes at `offset`.
    pub fn with_bytes_at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The bytes with their checksum for these addresses.
    pub fn with_checksum(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some(at) = self.checksum_offset.filter(|at| at + 2 <= bytes.len()) {
            let checksum = transport_checksum(source, destination, self.protocol, &bytes);
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}

/// Computes the transport checksum. For bytes that contain the correct one, the result is 0 (or all
/// ones, which is equivalent).
pub fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut sum = etherparse::checksum::Sum16BitWords::new().add_slice(bytes);
    let plain = protocol == ip_number::ICMP.0;
    if !plain {
        for address in [source, destination] {
            sum = match address {
                IpAddr::V4(address) => sum.add_4bytes(address.octets()),
                IpAddr::V6(address) => sum.add_16bytes(address.octets()),
            };
        }
        let length = u16::try_from(bytes.len()).expect("fits into a datagram");
        sum = sum.add_2bytes(length.to_be_bytes()).add_2bytes([0, protocol]);
    }
    // etherparse sums in native byte order.
    sum.ones_complement().to_be()
}
