//! IPv6 extension headers (RFC 8200, RFC 4302).

use etherparse::ip_number;

/// One extension header. The datagram fills in the next header field.
#[derive(Clone, Debug)]
pub struct ExtensionHeader {
    /// Its own protocol number.
    pub protocol: u8,
    /// Its bytes. The first one is the next header field.
    pub bytes: Vec<u8>,
}

impl ExtensionHeader {
    /// Hop-by-hop options with a router alert (RFC 2711), as in multicast listener reports.
    pub fn hop_by_hop() -> Self {
        let protocol = ip_number::IPV6_HEADER_HOP_BY_HOP.0;
        Self { protocol, bytes: vec![0, 0, 5, 2, 0, 0, 1, 0] }
    }

    /// Destination options with padding only, `8 * units` bytes long.
    pub fn destination_options(units: u8) -> Self {
        let length = usize::from(units) * 8;
        let mut bytes = vec![0; length]; // Pad1 options
        bytes[1] = units - 1;
        Self { protocol: ip_number::IPV6_DESTINATION_OPTIONS.0, bytes }
    }

    /// A routing header of type 0 without remaining addresses.
    pub fn routing() -> Self {
        Self { protocol: ip_number::IPV6_ROUTE_HEADER.0, bytes: vec![0; 8] }
    }

    /// An authentication header with a 12-byte integrity value.
    pub fn authentication() -> Self {
        let mut bytes = vec![0; 24];
        bytes[1] = 4; // in 4-octet words minus 2
        Self { protocol: ip_number::AUTHENTICATION_HEADER.0, bytes }
    }

    /// A fragment header. `offset` is in bytes.
    pub fn fragment(offset: u16, more: bool, identification: u32) -> Self {
        let [a, b] = (offset | u16::from(more)).to_be_bytes();
        let [i, d, e, n] = identification.to_be_bytes();
        Self {
            protocol: ip_number::IPV6_FRAGMENTATION_HEADER.0,
            bytes: vec![0, 0, a, b, i, d, e, n],
        }
    }

    /// Sets the length field.
    pub fn with_length_field(mut self, length: u8) -> Self {
        self.bytes[1] = length;
        self
    }
}
