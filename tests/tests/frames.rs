//! Raw frames of a sandbox on a bridge, where nothing but the policy stops them: first without an
//! agent, to see that every one of them crosses, then with it.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use policy_tests::{
    fixture::{self, Fixture},
    patience::eventually,
    server,
    stage::{OrFail as _, Stage},
    wire::{Sender, Wire, carries},
    world::{
        Sandbox,
        bridge::{self, NEIGHBOUR_LINK, NEIGHBOUR_MAC, Neighbour},
        sandbox::INSIDE,
    },
};
use serde_json::{Value, json};

/// Without a floor, so that the neighbour's private address is as good as any.
const NO_FLOOR: &str = "platform_deny = []";

/// A sandbox, its neighbour, and packet sockets at both.
struct Bridge {
    sandbox: Sandbox,
    _neighbour: Neighbour,
    inside: Wire,
    beyond: Wire,
    me: Sender,
    stage: Arc<Stage>,
}

impl Bridge {
    /// Built, but with no agent running yet.
    fn without_agent(config: &str) -> Self {
        let stage = Stage::without_agent(&format!("[dataplane]\n{NO_FLOOR}\n{config}"));
        let built = bridge::sandbox_with_neighbour(&stage.world);
        let (sandbox, neighbour) = built.or_fail("building a bridge");
        let inside = Wire::open(&sandbox.inside, INSIDE).or_fail("a packet socket");
        let beyond = Wire::open(&neighbour.inside, NEIGHBOUR_LINK).or_fail("a packet socket");
        let me = Sender { gateway: NEIGHBOUR_MAC, ..Sender::genuine(sandbox.identity) };
        let bridge = Self { sandbox, _neighbour: neighbour, inside, beyond, me, stage };
        bridge.wait_until_it_forwards();
        bridge
    }

    /// A port forwards from when the kernel has seen its carrier, which it looks for now and then.
    fn wait_until_it_forwards(&self) {
        let to = IpAddr::from(self.sandbox.identity.gateway_v4());
        let first = self.me.udp(to, server::CLOSED, b"<<first>>");
        let crossed = || {
            self.inside.send(&first).ok()?;
            let frame = self.beyond.next().ok()??;
            carries(&frame, b"<<first>>").then_some(())
        };
        eventually("the bridge forwards", crossed).or_fail("waiting");
    }

    fn start_agent(&self) {
        self.stage.restart();
        let path = format!("/agent/v1/sandboxes/{}", self.sandbox.id);
        let answer = self.stage.request("PUT", &path, &self.sandbox.spec(&json!({})));
        assert!(answer.code < 300, "{}", answer.body);
    }

    fn fixtures(&self) -> Vec<Fixture> {
        let identity = self.sandbox.identity;
        fixture::frames(self.me, identity.gateway_v4(), identity.gateway_v6())
    }

    /// Whether a frame reaches the neighbour: behind it goes one that does.
    fn crosses(&self, fixture: &Fixture, number: usize) -> bool {
        let marker = format!("<<marker {number}>>");
        let to = IpAddr::from(self.sandbox.identity.gateway_v4());
        self.inside.send(&fixture.frame).or_fail(&fixture.name);
        let behind = self.me.udp(to, server::CLOSED, marker.as_bytes());
        self.inside.send(&behind).or_fail("sending the marker");
        let seen = self.beyond.until(|frame| carries(frame, marker.as_bytes()));
        seen.or_fail("the marker").iter().any(|frame| carries(frame, &fixture.mark))
    }

    /// How many packets were counted with a reason.
    fn counted(&self, reason: &str) -> u64 {
        let path = format!("/agent/v1/sandboxes/{}", self.sandbox.id);
        let status = self.stage.request("GET", &path, &Value::Null).json();
        status["counters"][reason]["packets"].as_u64().unwrap_or(0)
    }
}

fn every_frame_is_judged_as_it_should(config: &str) {
    let bridge = Bridge::without_agent(config);
    let fixtures = bridge.fixtures();
    for (number, fixture) in fixtures.iter().enumerate() {
        assert!(bridge.crosses(fixture, number), "without an agent: {}", fixture.name);
    }
    bridge.start_agent();
    let mut wrong = String::new();
    for (fixture, number) in fixtures.iter().zip(fixtures.len()..) {
        let before = bridge.counted(fixture.reason);
        let crosses = bridge.crosses(fixture, number);
        let counted = bridge.counted(fixture.reason) > before;
        if crosses != fixture.passes || !counted {
            let Fixture { name, reason, .. } = fixture;
            let what = if crosses { "crosses" } else { "does not cross" };
            let _ = writeln!(wrong, "  {name}: {what}; counted as {reason}: {counted}");
        }
    }
    let log = bridge.stage.agent().log();
    assert!(wrong.is_empty(), "of {} frames:\n{wrong}\nthe agent's log:\n{log}", fixtures.len());
}

#[test]
fn every_frame_is_judged_as_it_should_at_tc() {
    every_frame_is_judged_as_it_should("");
}

#[test]
fn every_frame_is_judged_as_it_should_in_xdp() {
    every_frame_is_judged_as_it_should("mode = \"xdp\"");
}

#[test]
fn every_frame_is_judged_as_it_should_by_clsact_filters() {
    every_frame_is_judged_as_it_should("attach = \"clsact\"");
}
