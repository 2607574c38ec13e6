//! Frames of simple packets: whole IPv4 and IPv6 datagrams without options or extension headers, with
//! UDP or TCP.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    ip_header::{
        AddressWords, ETHERNET_HEADER_LEN, IPPROTO_TCP, IPPROTO_UDP, IPV4_FRAGMENT_OFFSET_MASK,
        IPV4_MORE_FRAGMENTS,
    },
    transport::{TCP_ACK, TCP_FIN, TCP_HEADER_MIN_LEN, TCP_RST, TCP_SYN, UDP_HEADER_LEN},
};

pub(crate) const IPV4_HEADER_LEN: usize = Ipv4Hdr::LEN;
pub(crate) const IPV6_HEADER_LEN: usize = Ipv6Hdr::LEN;
/// Every simple packet has room for this transport header, the longer of the two.
const TRANSPORT_LEN: usize = TCP_HEADER_MIN_LEN;
/// The fields of a TCP or UDP header, by offset.
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const UDP_LENGTH: usize = 4;

/// The part of the transport header of a simple packet that is judged.
#[derive(Clone, Copy)]
pub(crate) struct SimpleTransport {
    pub protocol: u8,
    /// The flags of TCP, of UDP none.
    pub tcp_flags: u8,
}

impl SimpleTransport {
    /// Whether it is no segment that opens or ends a TCP connection.
    #[inline(always)]
    pub(crate) fn keeps_connection(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0
    }

    /// Whether it is a segment that opens a TCP connection.
    #[inline(always)]
    pub(crate) fn opens_connection(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }
}

/// A frame of which at least the headers of a simple packet are linear.
#[derive(Clone, Copy)]
pub(crate) struct SimpleFrame<const IP_HEADER_LEN: usize> {
    start: usize,
    frame_length: usize,
}

impl<const IP_HEADER_LEN: usize> SimpleFrame<IP_HEADER_LEN> {
    pub(crate) const TRANSPORT: usize = ETHERNET_HEADER_LEN + IP_HEADER_LEN;

    /// The frame between these addresses, if the headers are linear.
    #[inline(always)]
    pub(crate) fn new(start: usize, end: usize, frame_length: u32) -> Option<Self> {
        let has_headers = start + Self::TRANSPORT + TRANSPORT_LEN <= end;
        has_headers.then_some(Self { start, frame_length: frame_length as usize })
    }

    /// Checks the transport header, given the length of the datagram without its IP header.
    #[inline(always)]
    fn check_transport(&self, protocol: u8, length: usize) -> Option<SimpleTransport> {
        if Self::TRANSPORT + length > self.frame_length {
            return None;
        }
        let (is_complete, tcp_flags) = match protocol {
            IPPROTO_TCP => {
                let header = usize::from(self.byte(Self::TRANSPORT + TCP_DATA_OFFSET) >> 4) * 4;
                let flags = self.byte(Self::TRANSPORT + TCP_FLAGS);
                (header >= TRANSPORT_LEN && header <= length, flags)
            }
            IPPROTO_UDP => {
                let datagram = usize::from(self.u16(Self::TRANSPORT + UDP_LENGTH));
                (datagram >= UDP_HEADER_LEN && datagram <= length, 0)
            }
            _ => return None,
        };
        is_complete.then_some(SimpleTransport { protocol, tcp_flags })
    }

    #[inline(always)]
    pub(crate) fn is_from(&self, mac: &[u8; 6]) -> bool {
        let mac = core::ptr::from_ref(mac);
        // SAFETY: the field of the endpoint has 6 bytes and is aligned to 8.
        let (first, last) = unsafe { (mac.cast::<u32>().read(), mac.cast::<u16>().add(2).read()) };
        self.read::<u32>(6) == first && self.read::<u16>(10) == last
    }

    #[inline(always)]
    pub(crate) fn ethertype(&self) -> [u8; 2] {
        self.u16(12).to_be_bytes()
    }

    #[inline(always)]
    pub(crate) fn ip_byte(&self, offset: usize) -> u8 {
        self.byte(ETHERNET_HEADER_LEN + offset)
    }

    /// A field of 16 bits, in host byte order.
    #[inline(always)]
    pub(crate) fn ip_u16(&self, offset: usize) -> u16 {
        self.u16(ETHERNET_HEADER_LEN + offset)
    }

    /// A word, in network byte order.
    #[inline(always)]
    pub(crate) fn ip_word(&self, offset: usize) -> u32 {
        self.read(ETHERNET_HEADER_LEN + offset)
    }

    #[inline(always)]
    pub(crate) fn ip_address(&self, offset: usize) -> AddressWords {
        [0, 4, 8, 12].map(|word| self.ip_word(offset + word))
    }

    #[inline(always)]
    fn byte(&self, offset: usize) -> u8 {
        self.read(offset)
    }

    #[inline(always)]
    fn u16(&self, offset: usize) -> u16 {
        u16::from_be(self.read(offset))
    }

    /// Reads an integer at a constant offset within the headers.
    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the bounds were checked when the frame was made, and every bit pattern is a valid
        // integer. Alignment: BPF loads need none on the architectures that the verifier accepts
        // this on, and loads that assume none would be single bytes.
        unsafe { core::ptr::read_volatile((self.start + offset) as *const T) }
    }
}

impl SimpleFrame<IPV4_HEADER_LEN> {
    /// Checks that this is a simple packet of IPv4.
    #[inline(always)]
    pub(crate) fn check_ipv4(&self) -> Option<SimpleTransport> {
        /// Offsets in the header.
        const TOTAL_LENGTH: usize = 2;
        const FRAGMENT: usize = 6;
        const PROTOCOL: usize = 9;
        const FRAGMENTED: u16 = IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK;
        if self.ip_byte(0) != 0x45 || self.ip_u16(FRAGMENT) & FRAGMENTED != 0 {
            return None;
        }
        let protocol = self.ip_byte(PROTOCOL);
        let length = usize::from(self.ip_u16(TOTAL_LENGTH)).checked_sub(IPV4_HEADER_LEN)?;
        self.check_transport(protocol, length)
    }
}

impl SimpleFrame<IPV6_HEADER_LEN> {
    /// Checks that this is a simple packet of IPv6.
    #[inline(always)]
    pub(crate) fn check_ipv6(&self) -> Option<SimpleTransport> {
        /// Offsets in the header.
        const PAYLOAD_LENGTH: usize = 4;
        const NEXT_HEADER: usize = 6;
        if self.ip_byte(0) >> 4 != 6 {
            return None;
        }
        let protocol = self.ip_byte(NEXT_HEADER);
        self.check_transport(protocol, self.ip_u16(PAYLOAD_LENGTH).into())
    }
}
