//! A sandbox as a test sees it: give it a policy, try to get out.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use super::{OrFail as _, Stage, ip};
use crate::{
    patience::eventually,
    probe::{self, How, Seen},
    server,
    wire::{Sender, Wire, carries},
    world::{Sandbox, host::UPLINK, sandbox::INSIDE},
};

/// Where markers go. A policy under which [`Guest::crossing`] is asked has to allow it.
pub const MARKER_TO: &str = "203.0.113.11";

static NEXT_MARKER: AtomicU32 = AtomicU32::new(0);

/// A sandbox on a stage.
pub struct Guest {
    sandbox: Sandbox,
    /// The stage it is on.
    pub stage: Arc<Stage>,
}

impl Deref for Guest {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Guest {
    pub(super) fn new(stage: Arc<Stage>, sandbox: Sandbox) -> Self {
        Self { sandbox, stage }
    }

    /// Tells the agent of the sandbox, with this `network`.
    #[track_caller]
    pub fn network(&self, network: Value) {
        self.configure(&json!({ "network": network }));
    }

    /// Tells the agent that the sandbox may reach these and nothing else.
    #[track_caller]
    pub fn may_only_reach(&self, allowed: &[&str]) {
        self.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allowed }));
    }

    /// Whether the egress proxy denied a connection that asks for `name`, with this reason.
    #[track_caller]
    pub fn was_denied(&self, name: &str, reason: &str) -> Value {
        self.event(&format!("a denial of {name} with {reason}"), |event| {
            event["name"] == name && event["reason"] == reason && event["verdict"] == "denied"
        })
    }

    /// Tells the agent of the sandbox, with the fields of `config` beside what identifies it.
    #[track_caller]
    pub fn configure(&self, config: &Value) {
        let path = format!("/agent/v1/sandboxes/{}", self.id);
        let answer = self.stage.request("PUT", &path, &self.spec(config));
        assert!(answer.code < 300, "the agent refuses {config}: {} {}", answer.code, answer.body);
    }

    /// Makes the agent forget the sandbox.
    #[track_caller]
    pub fn delete(&self) {
        let path = format!("/agent/v1/sandboxes/{}", self.id);
        let answer = self.stage.request("DELETE", &path, &Value::Null);
        assert_eq!(answer.code, 204, "{}", answer.body);
    }

    /// What the agent knows about the sandbox.
    #[track_caller]
    pub fn status(&self) -> Value {
        let path = format!("/agent/v1/sandboxes/{}", self.id);
        let answer = self.stage.request("GET", &path, &Value::Null);
        assert_eq!(answer.code, 200, "{}", answer.body);
        answer.json()
    }

    /// Opens a TCP connection.
    #[track_caller]
    pub fn tcp(&self, address: &str, port: u16) -> Seen {
        self.attempt(How::Tcp(port), address)
    }

    /// Sends a datagram to an echo server.
    #[track_caller]
    pub fn udp(&self, address: &str, port: u16) -> Seen {
        self.attempt(How::Udp(port), address)
    }

    /// Sends an echo request.
    #[track_caller]
    pub fn ping(&self, address: &str) -> Seen {
        self.attempt(How::Ping, address)
    }

    /// Tries to reach something.
    #[track_caller]
    pub fn attempt(&self, how: How, address: &str) -> Seen {
        probe::attempt(&self.inside, how, ip(address))
    }

    /// Whether TCP, UDP and ping are all answered by `address`.
    #[track_caller]
    pub fn reaches(&self, address: &str) {
        for how in [How::Tcp(server::ECHO), How::Udp(server::ECHO), How::Ping] {
            assert_eq!(self.attempt(how, address), Seen::Answered, "{how} to {address}");
        }
    }

    /// Whether TCP, UDP and ping to `address` are all refused at once.
    #[track_caller]
    pub fn is_refused(&self, address: &str) {
        assert_eq!(self.tcp(address, server::ECHO), Seen::Refused, "tcp to {address}");
        assert_eq!(self.udp(address, server::ECHO), Seen::Prohibited, "udp to {address}");
        assert_eq!(self.ping(address), Seen::Prohibited, "ping to {address}");
    }

    /// Whether TCP, UDP and ping to `address` are all met with silence.
    #[track_caller]
    pub fn is_ignored(&self, address: &str) {
        for how in [How::Tcp(server::ECHO), How::Udp(server::ECHO), How::Ping] {
            let seen = probe::attempt_in_vain(&self.inside, how, ip(address));
            assert_eq!(seen, Seen::Silence, "{how} to {address}");
        }
    }

    /// A TCP connection to an echo server.
    #[track_caller]
    pub fn connection(&self, address: &str) -> TcpStream {
        let to = SocketAddr::new(ip(address), server::ECHO);
        probe::connect(&self.inside, to).or_fail("connecting")
    }

    /// A UDP socket connected to an echo server.
    #[track_caller]
    pub fn datagrams(&self, address: &str) -> UdpSocket {
        let to = SocketAddr::new(ip(address), server::ECHO);
        probe::datagrams(&self.inside, to).or_fail("opening a UDP socket")
    }

    /// Who sends genuine raw frames for this sandbox.
    pub fn sender(&self) -> Sender {
        Sender::genuine(self.identity)
    }

    /// A packet socket on the sandbox's interface, inside.
    #[track_caller]
    pub fn wire(&self) -> Wire {
        Wire::open(&self.inside, INSIDE).or_fail("opening a packet socket")
    }

    /// A packet socket inside, whose frames begin with a virtio header.
    #[track_caller]
    pub fn offloading_wire(&self) -> Wire {
        Wire::offloading(&self.inside, INSIDE).or_fail("opening a packet socket")
    }

    /// A packet socket at the internet's end of the uplink.
    #[track_caller]
    pub fn beyond_the_host(&self) -> Wire {
        Wire::open(&self.stage.world.internet, UPLINK).or_fail("opening a packet socket")
    }

    /// What the payload of raw frames should hold for [`Self::crossing`] to recognise them.
    pub fn token(&self) -> Vec<u8> {
        format!("<<frame of {}>>", self.inside.name()).into_bytes()
    }

    /// Sends raw frames, and returns those with the sandbox's token that reach the internet.
    #[track_caller]
    pub fn crossing(&self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.crossing_through(&self.wire(), frames)
    }

    /// The same, sent through this packet socket.
    #[track_caller]
    pub fn crossing_through(&self, through: &Wire, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.learn_the_gateway();
        let (inside, beyond) = (self.wire(), self.beyond_the_host());
        for frame in frames {
            through.send(frame).or_fail("sending a raw frame");
        }
        let marker = format!("<<marker {}>>", NEXT_MARKER.fetch_add(1, Ordering::Relaxed));
        let last = self.sender().udp(ip(MARKER_TO), server::CLOSED, marker.as_bytes());
        inside.send(&last).or_fail("sending the marker");
        let seen = beyond.until(|frame| carries(frame, marker.as_bytes()));
        let token = self.token();
        let seen = seen.or_fail("waiting for the marker");
        seen.into_iter().filter(|frame| carries(frame, &token)).collect()
    }

    /// So that the first raw frame does not wait for the host's neighbour discovery.
    fn learn_the_gateway(&self) {
        let marker = self.udp(MARKER_TO, server::ECHO);
        assert_eq!(marker, Seen::Answered, "the policy under test has to allow {MARKER_TO}");
    }

    /// The events of this sandbox, once one satisfies `wanted`: that one.
    #[track_caller]
    pub fn event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(what, || {
            let events = self.stage.cli(&["events", "--sandbox", &self.id, "-o", "json"]);
            events.json_lines().into_iter().find(&wanted)
        });
        found.or_fail("looking for an event")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the agent's log ends:\n{}", self.stage.agent().log());
        }
    }
}
