//! A guest behind a tap device with a policy of the agent.

use std::{net::IpAddr, sync::Arc};

use serde_json::{Value, json};

use super::{MARKER_ADDRESS, OrFail as _, SharedTestbed, Testbed, parse_ip};
use crate::{
    network::{
        host_router::UPLINK_INTERFACE,
        sandbox::format_mac,
        tap_device::{TapDevice, VIRTIO_HEADER_LEN, VirtioHeader},
    },
    packet_socket::{FrameBuilder, PacketSocket, PacketView, contains_bytes},
    packets::arp_packet::ArpPacket,
    test_servers,
};

/// The EtherType of ARP.
const ARP_ETHERTYPE: [u8; 2] = [0x08, 0x06];

/// A token for the payload of frames, by which [`TapSandbox::frames_crossed`] recognises them.
pub const TAP_FRAME_TOKEN: &[u8] = b"<<from the guest>>";

/// A guest that can reach 8.8.8.8 and one IPv6 address, and a packet socket beyond the host.
pub struct TapSandbox {
    /// The guest's network card.
    pub device: TapDevice,
    /// Builds frames with the guest's addresses.
    pub frame_builder: FrameBuilder,
    uplink_socket: PacketSocket,
    testbed: Arc<Testbed>,
}

impl TapSandbox {
    /// Adds a guest to a testbed's host and registers it with the agent.
    #[track_caller]
    pub fn new(stage: &SharedTestbed, virtio: VirtioHeader) -> Self {
        let stage = stage.testbed();
        let tap = TapDevice::create(&stage.network, virtio).or_fail("plugging in a tap device");
        let beyond = PacketSocket::open(&stage.network.internet, UPLINK_INTERFACE)
            .or_fail("a packet socket");
        let guest = Self {
            frame_builder: FrameBuilder::for_sandbox(tap.addressing),
            device: tap,
            uplink_socket: beyond,
            testbed: stage,
        };
        let allow = ["8.8.8.8", "2001:db8:1::1", MARKER_ADDRESS];
        let spec = json!({
            "sandboxID": guest.sandbox_id(),
            "interface": guest.device.interface,
            "addresses": [guest.frame_builder.v4, guest.frame_builder.v6],
            "mac": format_mac(guest.frame_builder.mac),
            "network": { "denyOut": ["0.0.0.0/0"], "allowOut": allow },
        });
        let path = format!("/agent/v1/sandboxes/{}", guest.sandbox_id());
        let answer = guest.testbed.request("PUT", &path, &spec);
        assert_eq!(answer.status, 200, "{}", answer.body);
        guest
    }

    fn sandbox_id(&self) -> String {
        format!("guest{}", self.device.addressing.number)
    }

    /// The number of packets counted with a reason.
    #[track_caller]
    pub fn packet_count(&self, reason: &str) -> u64 {
        let path = format!("/agent/v1/sandboxes/{}", self.sandbox_id());
        let status = self.testbed.request("GET", &path, &Value::Null).json();
        status["counters"][reason]["packets"].as_u64().unwrap_or(0)
    }

    /// Sends a frame and returns the first packet that arrives from `from`.
    #[track_caller]
    pub fn exchange(&self, frame: &[u8], from: &str) -> ([u8; VIRTIO_HEADER_LEN], Vec<u8>) {
        self.device.send(frame).or_fail("sending a frame");
        let is_answer = |frame: &[u8]| {
            PacketView::parse(frame).is_some_and(|view| view.source == parse_ip(from))
        };
        self.device
            .receive(&format!("an answer from {from}"), |frame| {
                self.answer_arp(frame);
                is_answer(frame)
            })
            .or_fail("listening")
    }

    /// Announces the guest's MAC when the host sends an ARP request, as a guest's kernel would.
    fn answer_arp(&self, frame: &[u8]) {
        let announce = ArpPacket::request(
            (self.frame_builder.mac, self.frame_builder.v4),
            self.frame_builder.v4,
        );
        if frame.get(12..14) == Some(&ARP_ETHERTYPE) {
            self.device.send(&self.frame_builder.arp(announce)).or_fail("announcing");
        }
    }

    /// Adds static neighbour entries for the guest in both families, so that the host need not
    /// resolve its MAC.
    #[track_caller]
    pub fn pin_neighbors(&self) {
        let (identity, tap) = (self.device.addressing, &self.device.interface);
        let mac = format_mac(self.frame_builder.mac);
        let neighbours = format!(
            "neigh replace {} dev {tap} lladdr {mac} nud permanent
             neigh replace {} dev {tap} lladdr {mac} nud permanent",
            identity.v4(),
            identity.v6()
        );
        self.testbed.network.host.ip_batch(&neighbours).or_fail("telling the host of the guest");
    }

    /// Returns the frames with the token that have reached the internet, of those sent so far.
    #[track_caller]
    pub fn frames_crossed(&self) -> Vec<Vec<u8>> {
        let marker = format!("<<marker of {}>>", self.device.interface).into_bytes();
        let last =
            self.frame_builder.udp(parse_ip(MARKER_ADDRESS), test_servers::CLOSED_PORT, &marker);
        self.device.send(&last).or_fail("sending the marker");
        let seen = self
            .uplink_socket
            .receive_until(|frame| contains_bytes(frame, &marker))
            .or_fail("the marker");
        let own = |frame: &Vec<u8>| {
            PacketView::parse(frame)
                .is_some_and(|view| view.source == IpAddr::from(self.frame_builder.v4))
        };
        seen.into_iter()
            .filter(|frame| own(frame) && contains_bytes(frame, TAP_FRAME_TOKEN))
            .collect()
    }
}
