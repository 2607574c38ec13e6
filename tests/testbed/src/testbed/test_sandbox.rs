//! A sandbox from the point of view of a test, which sets its policy and sends traffic.

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

use super::{OrFail as _, Testbed, parse_ip};
use crate::{
    named_internet::curl::CurlCommand,
    network::{Sandbox, host_router::UPLINK_INTERFACE, sandbox::SANDBOX_INTERFACE},
    packet_socket::{FrameBuilder, PacketSocket, contains_bytes},
    probe::{self, ProbeKind, ProbeResult},
    test_servers,
    wait::eventually,
};

/// The destination of markers. Policies must allow it when a test calls
/// [`TestSandbox::frames_crossing`].
pub const MARKER_ADDRESS: &str = "203.0.113.11";

static NEXT_MARKER: AtomicU32 = AtomicU32::new(0);

/// A sandbox in a testbed.
pub struct TestSandbox {
    sandbox: Sandbox,
    /// The testbed that contains it.
    pub testbed: Arc<Testbed>,
}

impl Deref for TestSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl TestSandbox {
    pub(super) fn new(stage: Arc<Testbed>, sandbox: Sandbox) -> Self {
        Self { sandbox, testbed: stage }
    }

    /// Applies this `network` configuration to the sandbox.
    #[track_caller]
    pub fn apply_network(&self, network: Value) {
        self.apply_config(&json!({ "network": network }));
    }

    /// Allows these destinations and denies everything else.
    #[track_caller]
    pub fn allow_only(&self, allowed: &[&str]) {
        self.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allowed }));
    }

    /// Asserts that the egress proxy denied a connection to `name` with this reason.
    #[track_caller]
    pub fn assert_name_denied(&self, name: &str, reason: &str) -> Value {
        self.wait_for_event(&format!("a denial of {name} with {reason}"), |event| {
            event["name"] == name && event["reason"] == reason && event["verdict"] == "denied"
        })
    }

    /// Applies the fields of `config` to the sandbox, plus those that identify it.
    #[track_caller]
    pub fn apply_config(&self, config: &Value) {
        let path = format!("/agent/v1/sandboxes/{}", self.id);
        let answer = self.testbed.request("PUT", &path, &self.sandbox_spec(config));
        assert!(
            answer.status < 300,
            "the agent refuses {config}: {} {}",
            answer.status,
            answer.body
        );
    }

    /// A curl command that asks `http://policy.internal` in the sandbox, at an address where nothing
    /// is.
    pub fn curl_policy_host(&self, path: &str) -> CurlCommand<'_> {
        self.curl(&format!("http://policy.internal{path}")).resolving_to([192, 0, 2, 1].into())
    }

    /// The certificate (PEM) of its authority, fetched as programs in the sandbox do.
    #[track_caller]
    pub fn fetch_authority(&self) -> String {
        let fetched = self.curl_policy_host("/ca.pem").run();
        assert_eq!(fetched.status, 200, "{fetched:?}");
        fetched.text()
    }

    /// Deletes the sandbox from the agent.
    #[track_caller]
    pub fn delete(&self) {
        let path = format!("/agent/v1/sandboxes/{}", self.id);
        let answer = self.testbed.request("DELETE", &path, &Value::Null);
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    /// The agent's status of the sandbox.
    #[track_caller]
    pub fn status(&self) -> Value {
        let path = format!("/agent/v1/sandboxes/{}", self.id);
        let answer = self.testbed.request("GET", &path, &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Opens a TCP connection.
    #[track_caller]
    pub fn probe_tcp(&self, address: &str, port: u16) -> ProbeResult {
        self.probe(ProbeKind::Tcp(port), address)
    }

    /// Sends a datagram to an echo server.
    #[track_caller]
    pub fn probe_udp(&self, address: &str, port: u16) -> ProbeResult {
        self.probe(ProbeKind::Udp(port), address)
    }

    /// Sends an echo request.
    #[track_caller]
    pub fn probe_ping(&self, address: &str) -> ProbeResult {
        self.probe(ProbeKind::Ping, address)
    }

    /// Attempts to reach an address.
    #[track_caller]
    pub fn probe(&self, how: ProbeKind, address: &str) -> ProbeResult {
        probe::probe(&self.namespace, how, parse_ip(address))
    }

    /// Asserts that `address` replies to TCP, UDP and ping.
    #[track_caller]
    pub fn assert_reaches(&self, address: &str) {
        for how in [
            ProbeKind::Tcp(test_servers::ECHO_PORT),
            ProbeKind::Udp(test_servers::ECHO_PORT),
            ProbeKind::Ping,
        ] {
            assert_eq!(self.probe(how, address), ProbeResult::Answered, "{how} to {address}");
        }
    }

    /// Asserts that TCP, UDP and ping to `address` are all refused immediately.
    #[track_caller]
    pub fn assert_refused(&self, address: &str) {
        assert_eq!(
            self.probe_tcp(address, test_servers::ECHO_PORT),
            ProbeResult::Refused,
            "tcp to {address}"
        );
        assert_eq!(
            self.probe_udp(address, test_servers::ECHO_PORT),
            ProbeResult::Prohibited,
            "udp to {address}"
        );
        assert_eq!(self.probe_ping(address), ProbeResult::Prohibited, "ping to {address}");
    }

    /// Asserts that TCP, UDP and ping to `address` get no reply.
    #[track_caller]
    pub fn assert_ignored(&self, address: &str) {
        for how in [
            ProbeKind::Tcp(test_servers::ECHO_PORT),
            ProbeKind::Udp(test_servers::ECHO_PORT),
            ProbeKind::Ping,
        ] {
            let seen = probe::probe_expecting_silence(&self.namespace, how, parse_ip(address));
            assert_eq!(seen, ProbeResult::NoReply, "{how} to {address}");
        }
    }

    /// A TCP connection to an echo server.
    #[track_caller]
    pub fn connect_echo(&self, address: &str) -> TcpStream {
        let to = SocketAddr::new(parse_ip(address), test_servers::ECHO_PORT);
        probe::connect(&self.namespace, to).or_fail("connecting")
    }

    /// A UDP socket connected to an echo server.
    #[track_caller]
    pub fn connect_echo_udp(&self, address: &str) -> UdpSocket {
        let to = SocketAddr::new(parse_ip(address), test_servers::ECHO_PORT);
        probe::connect_udp(&self.namespace, to).or_fail("opening a UDP socket")
    }

    /// Builds raw frames with this sandbox's addresses.
    pub fn frame_builder(&self) -> FrameBuilder {
        FrameBuilder::for_sandbox(self.addressing)
    }

    /// A packet socket on the sandbox's interface, inside.
    #[track_caller]
    pub fn open_packet_socket(&self) -> PacketSocket {
        PacketSocket::open(&self.namespace, SANDBOX_INTERFACE).or_fail("opening a packet socket")
    }

    /// A packet socket inside whose frames begin with a virtio header.
    #[track_caller]
    pub fn open_virtio_packet_socket(&self) -> PacketSocket {
        PacketSocket::open_with_virtio_header(&self.namespace, SANDBOX_INTERFACE)
            .or_fail("opening a packet socket")
    }

    /// A packet socket at the internet's end of the uplink.
    #[track_caller]
    pub fn open_uplink_socket(&self) -> PacketSocket {
        PacketSocket::open(&self.testbed.network.internet, UPLINK_INTERFACE)
            .or_fail("opening a packet socket")
    }

    /// A token for the payload of raw frames, by which [`Self::frames_crossing`] recognises them.
    pub fn frame_token(&self) -> Vec<u8> {
        format!("<<frame of {}>>", self.namespace.name()).into_bytes()
    }

    /// Sends raw frames and returns those with the sandbox's token that reach the internet.
    #[track_caller]
    pub fn frames_crossing(&self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.frames_crossing_through(&self.open_packet_socket(), frames)
    }

    /// Like [`Self::frames_crossing`], through this packet socket.
    #[track_caller]
    pub fn frames_crossing_through(
        &self,
        through: &PacketSocket,
        frames: &[Vec<u8>],
    ) -> Vec<Vec<u8>> {
        self.resolve_gateway();
        let (inside, beyond) = (self.open_packet_socket(), self.open_uplink_socket());
        for frame in frames {
            through.send(frame).or_fail("sending a raw frame");
        }
        let marker = format!("<<marker {}>>", NEXT_MARKER.fetch_add(1, Ordering::Relaxed));
        let last = self.frame_builder().udp(
            parse_ip(MARKER_ADDRESS),
            test_servers::CLOSED_PORT,
            marker.as_bytes(),
        );
        inside.send(&last).or_fail("sending the marker");
        let seen = beyond.receive_until(|frame| contains_bytes(frame, marker.as_bytes()));
        let token = self.frame_token();
        let seen = seen.or_fail("waiting for the marker");
        seen.into_iter().filter(|frame| contains_bytes(frame, &token)).collect()
    }

    /// Resolves the gateway's MAC, so that the first raw frame does not wait for the host's
    /// neighbour discovery.
    fn resolve_gateway(&self) {
        let marker = self.probe_udp(MARKER_ADDRESS, test_servers::ECHO_PORT);
        assert_eq!(
            marker,
            ProbeResult::Answered,
            "the policy under test has to allow {MARKER_ADDRESS}"
        );
    }

    /// Waits for an event of this sandbox that satisfies `wanted`, and returns it.
    #[track_caller]
    pub fn wait_for_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(what, || {
            let events = self.testbed.cli(&["events", "--sandbox", &self.id, "-o", "json"]);
            events.json_lines().into_iter().find(&wanted)
        });
        found.or_fail("looking for an event")
    }
}

impl Drop for TestSandbox {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the agent's log ends:\n{}", self.testbed.agent().log_tail());
        }
    }
}
