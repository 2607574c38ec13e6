//! Raw frames of a sandbox on a bridge, where only the policy can drop them. The test first checks
//! without an agent that every frame crosses, then starts the agent.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use crate::frame_fixtures::{self, FrameFixture};
use policy_testbed::{
    network::{
        Sandbox,
        bridged_sandbox::{self, BridgeNeighbor, NEIGHBOR_INTERFACE, NEIGHBOR_MAC},
        sandbox::SANDBOX_INTERFACE,
    },
    packet_socket::{FrameBuilder, PacketSocket, contains_bytes},
    test_servers,
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

/// No floor, so that the neighbour's private address is treated like any other.
const EMPTY_FLOOR_CONFIG: &str = "platform_deny = []";

/// A sandbox, its neighbour, and a packet socket for each.
struct BridgeTestbed {
    sandbox: Sandbox,
    _neighbor: BridgeNeighbor,
    sandbox_socket: PacketSocket,
    neighbor_socket: PacketSocket,
    frame_builder: FrameBuilder,
    testbed: Arc<Testbed>,
}

impl BridgeTestbed {
    /// Builds the testbed without starting the agent.
    fn without_agent(config: &str) -> Self {
        let stage = Testbed::without_agent(&format!("[dataplane]\n{EMPTY_FLOOR_CONFIG}\n{config}"));
        let built = bridged_sandbox::bridged_sandbox_with_neighbor(&stage.network);
        let (sandbox, neighbour) = built.or_fail("building a bridge");
        let inside =
            PacketSocket::open(&sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
        let beyond =
            PacketSocket::open(&neighbour.namespace, NEIGHBOR_INTERFACE).or_fail("a packet socket");
        let me =
            FrameBuilder { gateway: NEIGHBOR_MAC, ..FrameBuilder::for_sandbox(sandbox.addressing) };
        let bridge = Self {
            sandbox,
            _neighbor: neighbour,
            sandbox_socket: inside,
            neighbor_socket: beyond,
            frame_builder: me,
            testbed: stage,
        };
        bridge.wait_until_forwarding();
        bridge
    }

    /// Waits until the bridge port forwards. It does so once the kernel has noticed its carrier,
    /// which it checks periodically.
    fn wait_until_forwarding(&self) {
        let to = IpAddr::from(self.sandbox.addressing.gateway_v4());
        let first = self.frame_builder.udp(to, test_servers::CLOSED_PORT, b"<<first>>");
        let crossed = || {
            self.sandbox_socket.send(&first).ok()?;
            let frame = self.neighbor_socket.try_receive().ok()??;
            contains_bytes(&frame, b"<<first>>").then_some(())
        };
        eventually("the bridge forwards", crossed).or_fail("waiting");
    }

    fn start_agent(&self) {
        self.testbed.restart_agent();
        let path = format!("/agent/v1/sandboxes/{}", self.sandbox.id);
        let answer = self.testbed.request("PUT", &path, &self.sandbox.sandbox_spec(&json!({})));
        assert!(answer.status < 300, "{}", answer.body);
    }

    fn fixtures(&self) -> Vec<FrameFixture> {
        let identity = self.sandbox.addressing;
        frame_fixtures::frame_fixtures(
            self.frame_builder,
            identity.gateway_v4(),
            identity.gateway_v6(),
        )
    }

    /// Returns whether a frame reaches the neighbour. An allowed frame follows it as a marker.
    fn crosses(&self, fixture: &FrameFixture, number: usize) -> bool {
        let marker = format!("<<marker {number}>>");
        let to = IpAddr::from(self.sandbox.addressing.gateway_v4());
        self.sandbox_socket.send(&fixture.frame).or_fail(&fixture.name);
        let behind = self.frame_builder.udp(to, test_servers::CLOSED_PORT, marker.as_bytes());
        self.sandbox_socket.send(&behind).or_fail("sending the marker");
        let seen =
            self.neighbor_socket.receive_until(|frame| contains_bytes(frame, marker.as_bytes()));
        seen.or_fail("the marker").iter().any(|frame| contains_bytes(frame, &fixture.mark))
    }

    /// The number of packets counted with a reason.
    fn packet_count(&self, reason: &str) -> u64 {
        let path = format!("/agent/v1/sandboxes/{}", self.sandbox.id);
        let status = self.testbed.request("GET", &path, &Value::Null).json();
        status["counters"][reason]["packets"].as_u64().unwrap_or(0)
    }
}

fn every_frame_gets_the_expected_verdict(config: &str) {
    let bridge = BridgeTestbed::without_agent(config);
    let fixtures = bridge.fixtures();
    for (number, fixture) in fixtures.iter().enumerate() {
        assert!(bridge.crosses(fixture, number), "without an agent: {}", fixture.name);
    }
    bridge.start_agent();
    let mut wrong = String::new();
    for (fixture, number) in fixtures.iter().zip(fixtures.len()..) {
        let before = bridge.packet_count(fixture.reason);
        let crosses = bridge.crosses(fixture, number);
        let counted = bridge.packet_count(fixture.reason) > before;
        if crosses != fixture.passes || !counted {
            let FrameFixture { name, reason, .. } = fixture;
            let what = if crosses { "crosses" } else { "does not cross" };
            let _ = writeln!(wrong, "  {name}: {what}; counted as {reason}: {counted}");
        }
    }
    let log = bridge.testbed.agent().log_tail();
    assert!(wrong.is_empty(), "of {} frames:\n{wrong}\nthe agent's log:\n{log}", fixtures.len());
}

#[test]
fn every_frame_gets_the_expected_verdict_at_tc() {
    every_frame_gets_the_expected_verdict("");
}

#[test]
fn every_frame_gets_the_expected_verdict_in_xdp() {
    every_frame_gets_the_expected_verdict("mode = \"xdp\"");
}

#[test]
fn every_frame_gets_the_expected_verdict_from_clsact_filters() {
    every_frame_gets_the_expected_verdict("attach = \"clsact\"");
}
