//! Compares the frames that crossed with those that may.

use std::collections::HashMap;

use policy_testbed::{
    network::host_router::{HOST_UPLINK_V4, HOST_UPLINK_V6},
    packet_socket::PacketView,
    packets::ETHERNET_HEADER_LEN,
};

/// The frames of a round, as they would appear after forwarding.
#[derive(Default)]
pub(crate) struct ExpectedFrames {
    allowed: HashMap<Vec<u8>, usize>,
    denied: HashMap<Vec<u8>, String>,
}

/// The class of a received frame.
pub(crate) enum ArrivedFrame {
    /// A frame that may cross.
    Allowed,
    /// A frame of the host itself: neighbour discovery, multicast listener reports.
    FromHost,
    /// A frame that must not cross, and the reason.
    Leaked(String),
}

impl ExpectedFrames {
    /// Adds a frame that the oracle allows.
    pub(crate) fn allow(&mut self, frame: &[u8]) {
        *self.allowed.entry(as_forwarded(frame)).or_default() += 1;
    }

    /// Adds a frame that the oracle denies.
    pub(crate) fn deny(&mut self, frame: &[u8], reason: String) {
        self.denied.insert(as_forwarded(frame), reason);
    }

    /// Classifies a received frame. An allowed frame may cross as often as it was sent.
    pub(crate) fn classify(&mut self, frame: &[u8]) -> ArrivedFrame {
        let packet = as_forwarded(frame);
        if let Some(left) = self.allowed.get_mut(&packet).filter(|left| **left > 0) {
            *left -= 1;
            return ArrivedFrame::Allowed;
        }
        match self.denied.get(&packet) {
            Some(reason) => ArrivedFrame::Leaked(reason.clone()),
            None if is_from_host(frame) => ArrivedFrame::FromHost,
            None => ArrivedFrame::Leaked("it was never sent like this".to_owned()),
        }
    }
}

/// A packet without the parts that a router changes: the Ethernet header, the hop limit, the header
/// checksum, and any padding.
fn as_forwarded(frame: &[u8]) -> Vec<u8> {
    let packet = frame.get(ETHERNET_HEADER_LEN..).unwrap_or_default();
    let field = |at: usize| {
        let bytes = packet.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| usize::from(u16::from_be_bytes(*bytes)))
    };
    let (length, cleared): (usize, &[usize]) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (field(2), &[8, 10, 11]),
        Some(6) => (40 + field(4), &[7]),
        _ => (packet.len(), &[]),
    };
    let mut packet = packet[..length.min(packet.len())].to_vec();
    for at in cleared {
        if let Some(byte) = packet.get_mut(*at) {
            *byte = 0;
        }
    }
    packet
}

fn is_from_host(frame: &[u8]) -> bool {
    match PacketView::parse(frame) {
        Some(PacketView { source: std::net::IpAddr::V6(source), .. }) => {
            source == HOST_UPLINK_V6 || source.is_unicast_link_local() || source.is_unspecified()
        }
        Some(view) => view.source == HOST_UPLINK_V4,
        None => frame.get(12..14) == Some(&[0x08, 0x06][..]), // the host's own ARP
    }
}
