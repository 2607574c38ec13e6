//! The parsed headers of a packet.

use crate::{
    ip_header::{EMPTY_IP_HEADER, IpHeader},
    transport::{EMPTY_TRANSPORT_HEADER, TransportHeader},
};

/// The parsed headers of a packet, for the verdict and the event.
pub(crate) struct ParsedHeaders {
    pub ethertype: [u8; 2],
    pub ip_header: IpHeader,
    pub transport_header: TransportHeader,
}

impl ParsedHeaders {
    /// Nothing parsed yet.
    pub(crate) const EMPTY: Self = Self {
        ethertype: [0; 2],
        ip_header: EMPTY_IP_HEADER,
        transport_header: EMPTY_TRANSPORT_HEADER,
    };
}
