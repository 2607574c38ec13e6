//! Frames as data: those that a sandbox may and may not send to a neighbour on its link, with
//! reasons. This is the executable form of the known bypasses in `docs/`.

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
    /// The name of the case.
    pub(crate) name: String,
    /// The bytes of the frame.
    pub(crate) frame: Vec<u8>,
    /// The bytes to look for at the other end: the kernel strips VLAN tags on the way.
    pub(crate) mark: Vec<u8>,
    /// The label of the expected reason.
    pub(crate) reason: &'static str,
    /// Whether the frame passes.
    pub(crate) passes: bool,
}

/// The payload of most frames.
const PAYLOAD_TOKEN: &[u8] = b"<<what a sandbox has to say>>";

/// The sender, the receiver, and the collected frames.
struct FixtureCollector {
    source: FrameBuilder,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    fixtures: Vec<FrameFixture>,
}

/// All frames from a sandbox to a neighbour with these addresses, which no rule denies.
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
    /// What a well-behaved sandbox sends.
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

    /// A UDP datagram to the neighbour, which a case can modify.
    fn udp_datagram(&self, to: impl Into<IpAddr>) -> IpDatagram {
        self.source.datagram_to(to.into(), IpPayload::udp(SOURCE_PORT, 9, PAYLOAD_TOKEN))
    }

    /// Adds a frame that no rule denies.
    fn add_passing(&mut self, name: impl Into<String>, frame: Vec<u8>) {
        self.add_passing_as("no_rule", name, frame);
    }

    /// Adds a frame that passes for this reason.
    fn add_passing_as(&mut self, reason: &'static str, name: impl Into<String>, frame: Vec<u8>) {
        let (name, mark) = (name.into(), frame.clone());
        self.fixtures.push(FrameFixture { name, frame, mark, reason, passes: true });
    }

    /// Adds a frame that is dropped for this reason.
    fn add_denied(&mut self, reason: &'static str, name: impl Into<String>, frame: Vec<u8>) {
        let mark = frame.clone();
        self.add_denied_with_mark(reason, name, frame, mark);
    }

    /// Adds a denied frame that is recognised by `mark`.
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
