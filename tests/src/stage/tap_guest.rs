//! A guest behind a tap device, for which the agent enforces a policy.

use std::{net::IpAddr, sync::Arc};

use serde_json::{Value, json};

use super::{MARKER_TO, OrFail as _, Shared, Stage, ip};
use crate::{
    packet::arp::Arp,
    server,
    wire::{Sender, View, Wire, carries},
    world::{
        host::UPLINK,
        sandbox::mac_text,
        tap::{Tap, VIRTIO_HEADER, Virtio},
    },
};

/// EtherType of ARP.
const ARP: [u8; 2] = [0x08, 0x06];

/// What the payload of frames should hold for [`TapGuest::crossed`] to recognise them.
pub const TOKEN: &[u8] = b"<<from the guest>>";

/// A guest that may reach 8.8.8.8 and one IPv6 address, and a packet socket beyond the host.
pub struct TapGuest {
    /// Its network card.
    pub tap: Tap,
    /// Who it is.
    pub me: Sender,
    beyond: Wire,
    stage: Arc<Stage>,
}

impl TapGuest {
    /// Plugs a guest into a stage's host, and tells the agent of it.
    #[track_caller]
    pub fn on(stage: &Shared, virtio: Virtio) -> Self {
        let stage = stage.stage();
        let tap = Tap::plug_into(&stage.world, virtio).or_fail("plugging in a tap device");
        let beyond = Wire::open(&stage.world.internet, UPLINK).or_fail("a packet socket");
        let guest = Self { me: Sender::genuine(tap.identity), tap, beyond, stage };
        let allow = ["8.8.8.8", "2001:db8:1::1", MARKER_TO];
        let spec = json!({
            "sandboxID": guest.id(),
            "interface": guest.tap.interface,
            "addresses": [guest.me.v4, guest.me.v6],
            "mac": mac_text(guest.me.mac),
            "network": { "denyOut": ["0.0.0.0/0"], "allowOut": allow },
        });
        let path = format!("/agent/v1/sandboxes/{}", guest.id());
        let answer = guest.stage.request("PUT", &path, &spec);
        assert_eq!(answer.code, 200, "{}", answer.body);
        guest
    }

    fn id(&self) -> String {
        format!("guest{}", self.tap.identity.number)
    }

    /// How many packets were counted with a reason.
    #[track_caller]
    pub fn counted(&self, reason: &str) -> u64 {
        let path = format!("/agent/v1/sandboxes/{}", self.id());
        let status = self.stage.request("GET", &path, &Value::Null).json();
        status["counters"][reason]["packets"].as_u64().unwrap_or(0)
    }

    /// Sends a frame, and returns the first packet that comes back from `from`.
    #[track_caller]
    pub fn ask(&self, frame: &[u8], from: &str) -> ([u8; VIRTIO_HEADER], Vec<u8>) {
        self.tap.send(frame).or_fail("sending a frame");
        let is_answer = |frame: &[u8]| View::of(frame).is_some_and(|view| view.source == ip(from));
        self.tap
            .receive(&format!("an answer from {from}"), |frame| {
                self.introduce_myself(frame);
                is_answer(frame)
            })
            .or_fail("listening")
    }

    /// Answers the host's question who has the guest's address, as a guest's kernel would.
    fn introduce_myself(&self, frame: &[u8]) {
        let announce = Arp::request((self.me.mac, self.me.v4), self.me.v4);
        if frame.get(12..14) == Some(&ARP) {
            self.tap.send(&self.me.arp(announce)).or_fail("announcing");
        }
    }

    /// So that the host knows the guest's MAC in both families before anything is asked.
    #[track_caller]
    pub fn settle(&self) {
        let (identity, tap) = (self.tap.identity, &self.tap.interface);
        let mac = mac_text(self.me.mac);
        let neighbours = format!(
            "neigh replace {} dev {tap} lladdr {mac} nud permanent
             neigh replace {} dev {tap} lladdr {mac} nud permanent",
            identity.v4(),
            identity.v6()
        );
        self.stage.world.host.ip(&neighbours).or_fail("telling the host of the guest");
    }

    /// The frames with the token that reach the internet, of those sent so far.
    #[track_caller]
    pub fn crossed(&self) -> Vec<Vec<u8>> {
        let marker = format!("<<marker of {}>>", self.tap.interface).into_bytes();
        let last = self.me.udp(ip(MARKER_TO), server::CLOSED, &marker);
        self.tap.send(&last).or_fail("sending the marker");
        let seen = self.beyond.until(|frame| carries(frame, &marker)).or_fail("the marker");
        let own = |frame: &Vec<u8>| {
            View::of(frame).is_some_and(|view| view.source == IpAddr::from(self.me.v4))
        };
        seen.into_iter().filter(|frame| own(frame) && carries(frame, TOKEN)).collect()
    }
}
