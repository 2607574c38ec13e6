//! What has been read of a packet.

use crate::{
    ip_header::{EMPTY_IP_HEADER, IpHeader},
    transport::{EMPTY_TRANSPORT_HEADER, TransportHeader},
};

/// What has been read of a packet, for the judgement and for the report.
pub(crate) struct ParsedHeaders {
    pub ethertype: [u8; 2],
    pub ip_header: IpHeader,
    pub transport_header: TransportHeader,
}

impl ParsedHeaders {
    /// Nothing yet.
    pub(crate) const EMPTY: Self = Self {
        ethertype: [0; 2],
        ip_header: EMPTY_IP_HEADER,
        transport_header: EMPTY_TRANSPORT_HEADER,
    };
}
