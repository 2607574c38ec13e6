//! Frames as data: what a sandbox may send to a neighbour on its link and what not, and why. The
//! list of what is known to get around such filters (`docs/`) in a form that runs.

mod extension_headers;
mod header_fixtures;
mod link_layer;
mod neighbor_discovery;
mod spoofed_sources;
mod truncated_frames;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::ip_number::{ENCAPSULATING_SECURITY_PAYLOAD, GRE, SCTP};

use policy_testbed::{
    packet_socket::{FrameBuilder, SOURCE_PORT},
    packets::{IpDatagram, IpPayload},
};

/// One frame.
#[derive(Clone, Debug)]
pub(crate) struct FrameFixture {
    /// What it is.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) frame: Vec<u8>,
    /// What to look for at the other end: the kernel takes VLAN tags off on the way.
    pub(crate) mark: Vec<u8>,
    /// Label of the reason that it must have.
    pub(crate) reason: &'static str,
    /// Whether it passes.
    pub(crate) passes: bool,
}

/// What the payload of most frames is.
const PAYLOAD_TOKEN: &[u8] = b"<<what a sandbox has to say>>";

/// Who sends, to whom, and what has been collected.
struct FixtureCollector {
    source: FrameBuilder,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    fixtures: Vec<FrameFixture>,
}

/// All frames of a sandbox to a neighbour with these addresses, whom no rule denies.
pub(crate) fn frame_fixtures(me: FrameBuilder, v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<FrameFixture> {
    let mut collector = FixtureCollector { source: me, v4, v6, fixtures: Vec::new() };
    collector.add_genuine();
    collector.add_spoofed_sources();
    collector.add_arp();
    collector.add_neighbor_discovery();
    collector.add_vlan_tags();
    collector.add_unknown_ethertypes();
    collector.add_ipv4_headers();
    collector.add_ipv6_headers();
    collector.add_transport_headers();
    collector.add_extension_headers();
    collector.add_truncated();
    collector.fixtures
}

impl FixtureCollector {
    /// What a sandbox with a clean conscience sends.
    fn add_genuine(&mut self) {
        let me = self.source;
        for to in [IpAddr::from(self.v4), self.v6.into()] {
            self.add_passing(format!("UDP to {to}"), me.udp(to, 9, PAYLOAD_TOKEN));
            self.add_passing(format!("ping to {to}"), me.ping(to));
            self.add_passing(format!("TCP to {to}"), me.syn(to, 9));
            for protocol in [GRE.0, ENCAPSULATING_SECURITY_PAYLOAD.0, SCTP.0] {
                let frame = me.frame_payload(to, IpPayload::raw(protocol, PAYLOAD_TOKEN));
                self.add_passing(format!("protocol {protocol} to {to}"), frame);
            }
        }
    }

    /// A UDP datagram to the neighbour, to be bent.
    fn udp_datagram(&self, to: impl Into<IpAddr>) -> IpDatagram {
        self.source.datagram_to(to.into(), IpPayload::udp(SOURCE_PORT, 9, PAYLOAD_TOKEN))
    }

    /// A frame that no rule denies.
    fn add_passing(&mut self, name: impl Into<String>, frame: Vec<u8>) {
        self.add_passing_as("no_rule", name, frame);
    }

    /// A frame that passes for this reason.
    fn add_passing_as(&mut self, reason: &'static str, name: impl Into<String>, frame: Vec<u8>) {
        let (name, mark) = (name.into(), frame.clone());
        self.fixtures.push(FrameFixture { name, frame, mark, reason, passes: true });
    }

    /// A frame that is dropped for this reason.
    fn add_denied(&mut self, reason: &'static str, name: impl Into<String>, frame: Vec<u8>) {
        let mark = frame.clone();
        self.add_denied_with_mark(reason, name, frame, mark);
    }

    /// The same, to be recognised by `mark`.
    fn add_denied_with_mark(
        &mut self,
        reason: &'static str,
        name: impl Into<String>,
        frame: Vec<u8>,
        mark: Vec<u8>,
    ) {
        self.fixtures.push(FrameFixture { name: name.into(), frame, mark, reason, passes: false });
    }
}
