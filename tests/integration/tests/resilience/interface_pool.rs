//! Pooled interfaces (`[[interfaces]]`): the guest behind one reaches nothing unless a sandbox is
//! assigned to it.

use std::{fs::File, io::Write as _, sync::Arc};

use jiff::Timestamp;
use policy_testbed::{
    network::{host_router::UPLINK_INTERFACE, sandbox::SandboxAddressing},
    packet_socket::{PacketSocket, contains_bytes},
    probe::ProbeResult,
    test_servers,
    testbed::{
        ALLOWED_ADDRESSES, CLSACT_CONFIG, FrameFlood, MARKER_ADDRESS, OrFail as _, TestSandbox,
        Testbed, XDP_CONFIG, parse_ip,
    },
    wait::eventually,
};
use serde_json::{Value, json};

/// The destination of a burst. The sandboxes created here may reach it.
const ALLOWED_ADDRESS: &str = "8.8.8.8";
/// A destination that they may not reach.
const DENIED_ADDRESS: &str = "8.8.8.9";
/// A day in seconds.
const DAY_SECONDS: i64 = 86_400;
/// The number of frames in a burst.
const BURST_FRAMES: usize = 50;

/// A testbed with one pooled interface.
struct InterfacePoolScenario {
    /// The guest behind the pooled interface.
    pooled: TestSandbox,
    /// A sandbox created by `apply`. Its packets show that the guest's would have arrived by now.
    applied: TestSandbox,
    testbed: Arc<Testbed>,
}

impl InterfacePoolScenario {
    /// The agent is configured but does not run.
    fn without_agent(config: &str) -> Self {
        let stage = Testbed::without_agent(config);
        let (guest, other) = (stage.add_sandbox(), stage.add_sandbox());
        add_pool_interface(&stage, &guest.interface, guest.addressing);
        Self { pooled: guest, applied: other, testbed: stage }
    }

    fn with_config(config: &str) -> Self {
        let scene = Self::without_agent(config);
        scene.start_agent();
        scene
    }

    fn start_agent(&self) {
        self.testbed.restart_agent();
        self.applied.allow_only(&ALLOWED_ADDRESSES);
    }

    /// Creates a sandbox on the interface and returns its path.
    fn create_sandbox(&self, timeout: u32) -> String {
        let network = json!({ "allowOut": ALLOWED_ADDRESSES, "denyOut": ["0.0.0.0/0"] });
        let wish = json!({ "templateID": "base", "timeout": timeout, "network": network });
        let answer = self.testbed.request("POST", "/v2/sandboxes", &wish);
        assert_eq!(answer.status, 201, "{}", answer.body);
        let id = answer.json()["sandboxID"].as_str().or_fail("an ID").to_owned();
        format!("/sandboxes/{id}")
    }

    fn delete_sandbox(&self, path: &str) {
        let answer = self.testbed.request("DELETE", path, &Value::Null);
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    fn exists(&self, path: &str) -> bool {
        self.testbed.request("GET", path, &Value::Null).status == 200
    }

    /// The end of its lease.
    fn lease_end(&self, path: &str) -> Timestamp {
        let answer = self.testbed.request("GET", path, &Value::Null).json();
        let ends = answer["endAt"].as_str().or_fail("an end");
        ends.parse().or_fail(ends)
    }

    /// Returns how many frames of a burst to the allowed address cross.
    fn burst_crossing(&self) -> usize {
        let frame = self.pooled.frame_builder().udp(
            parse_ip(ALLOWED_ADDRESS),
            test_servers::CLOSED_PORT,
            &self.pooled.frame_token(),
        );
        let (inside, beyond) = (self.pooled.open_packet_socket(), self.pooled.open_uplink_socket());
        for _ in 0..BURST_FRAMES {
            inside.send(&frame).or_fail("sending a raw frame");
        }
        self.frames_arrived(&beyond)
    }

    /// Returns how many of the guest's frames have crossed the host so far.
    fn frames_arrived(&self, beyond: &PacketSocket) -> usize {
        // Frames in flight before the second marker have arrived.
        self.applied.frames_crossing(&[]);
        self.applied.frames_crossing(&[]);
        let token = self.pooled.frame_token();
        let frames = std::iter::from_fn(|| beyond.try_receive().or_fail("reading"));
        frames.filter(|frame| contains_bytes(frame, &token)).count()
    }
}

/// Adds an interface to `[[interfaces]]`.
fn add_pool_interface(stage: &Testbed, interface: &str, identity: SandboxAddressing) {
    let file = File::options().append(true).open(stage.agent().config_path());
    let (mut file, addresses) =
        (file.or_fail("the configuration"), [identity.v4().to_string(), identity.v6().to_string()]);
    writeln!(file, "[[interfaces]]\ninterface = {interface:?}\naddresses = {addresses:?}")
        .or_fail("writing the configuration");
}

/// Sends a flood to the denied address, from before the agent's start through all changes of the
/// interface.
fn assert_nothing_crosses(config: &str) {
    let scene = InterfacePoolScenario::without_agent(config);
    let guest = &scene.pooled;
    guest.assert_reaches(MARKER_ADDRESS);
    let denied = guest.frame_builder().udp(
        parse_ip(DENIED_ADDRESS),
        test_servers::CLOSED_PORT,
        &guest.frame_token(),
    );
    let flood = FrameFlood::start(guest.open_packet_socket(), vec![denied]);
    let open = guest.open_uplink_socket();
    let crosses = |frame: &[u8]| contains_bytes(frame, &guest.frame_token());
    open.receive_until(crosses).or_fail("it crosses before the agent runs");
    scene.start_agent();
    scene.frames_arrived(&open);
    let beyond = guest.open_uplink_socket();
    for _ in 0..2 {
        let sandbox = scene.create_sandbox(300);
        guest.assert_reaches(ALLOWED_ADDRESS);
        scene.delete_sandbox(&sandbox);
    }
    scene.testbed.kill_agent();
    scene.testbed.restart_agent();
    let sandbox = scene.create_sandbox(1);
    guest.assert_reaches(ALLOWED_ADDRESS);
    eventually("its time is over", || (!scene.exists(&sandbox)).then_some(())).or_fail("waiting");
    assert_eq!(scene.frames_arrived(&beyond), 0);
    assert!(flood.is_running());
    assert!(flood.stop() > 0);
}

#[test]
fn no_packet_crosses_while_an_interface_is_allocated_and_released() {
    assert_nothing_crosses("");
}

#[test]
fn no_packet_crosses_with_clsact_filters() {
    assert_nothing_crosses(CLSACT_CONFIG);
}

#[test]
fn no_packet_crosses_with_xdp() {
    assert_nothing_crosses(XDP_CONFIG);
}

/// Before, between and after sandboxes, with and without a running agent.
fn assert_reachable_only_with_sandbox(config: &str) {
    let scene = InterfacePoolScenario::with_config(config);
    assert_eq!(scene.burst_crossing(), 0, "before the first sandbox");
    let sandbox = scene.create_sandbox(300);
    assert_eq!(scene.burst_crossing(), BURST_FRAMES, "with a sandbox");
    scene.pooled.assert_reaches(ALLOWED_ADDRESS);
    scene.pooled.assert_refused(DENIED_ADDRESS);
    scene.testbed.kill_agent();
    scene.testbed.restart_agent();
    assert!(scene.exists(&sandbox));
    assert_eq!(scene.burst_crossing(), BURST_FRAMES, "the next agent knows it");
    scene.delete_sandbox(&sandbox);
    assert_eq!(scene.burst_crossing(), 0, "after it was deleted");
    scene.testbed.kill_agent();
    assert_eq!(scene.burst_crossing(), 0, "while no agent runs");
    scene.testbed.restart_agent();
    assert_eq!(scene.burst_crossing(), 0, "after the agent has come back");
    scene.create_sandbox(300);
    scene.pooled.assert_reaches(ALLOWED_ADDRESS);
    scene.pooled.assert_refused(DENIED_ADDRESS);
}

#[test]
fn a_pooled_interface_reaches_nothing_without_a_sandbox() {
    assert_reachable_only_with_sandbox("");
}

#[test]
fn a_pooled_interface_reaches_nothing_without_a_sandbox_with_clsact() {
    assert_reachable_only_with_sandbox(CLSACT_CONFIG);
}

#[test]
fn an_expired_lease_closes_the_interface() {
    let scene = InterfacePoolScenario::with_config("");
    let sandbox = scene.create_sandbox(1);
    eventually("its time is over", || (!scene.exists(&sandbox)).then_some(())).or_fail("waiting");
    assert_eq!(scene.burst_crossing(), 0);
}

#[test]
fn a_lease_that_expired_without_an_agent_ends_at_start() {
    let scene = InterfacePoolScenario::with_config("");
    let sandbox = scene.create_sandbox(1);
    let shown = scene.testbed.request("GET", &sandbox, &Value::Null).json();
    let ends: Timestamp = shown["endAt"].as_str().or_fail("an end").parse().or_fail("a time");
    scene.testbed.kill_agent();
    assert_eq!(scene.burst_crossing(), BURST_FRAMES, "the kernel goes on enforcing");
    eventually("its time is over", || (Timestamp::now() > ends).then_some(())).or_fail("waiting");
    scene.testbed.restart_agent();
    assert!(!scene.exists(&sandbox));
    assert_eq!(scene.burst_crossing(), 0);
}

#[test]
fn an_interface_that_appears_later_is_closed() {
    let scene = InterfacePoolScenario::without_agent("");
    let late = SandboxAddressing { number: scene.applied.addressing.number + 1 };
    add_pool_interface(&scene.testbed, &format!("sb{}", late.number), late);
    scene.start_agent();
    let guest = scene.testbed.add_sandbox();
    assert_eq!(guest.addressing.number, late.number);
    let scene = InterfacePoolScenario { pooled: guest, ..scene };
    eventually("it is shut", || (scene.burst_crossing() == 0).then_some(())).or_fail("waiting");
    scene.create_sandbox(300);
    scene.create_sandbox(300);
    scene.pooled.assert_reaches(ALLOWED_ADDRESS);
}

#[test]
fn an_applied_sandbox_may_use_it_and_leaves_it_closed() {
    let scene = InterfacePoolScenario::with_config("");
    scene.pooled.allow_only(&ALLOWED_ADDRESSES);
    assert_eq!(scene.burst_crossing(), BURST_FRAMES);
    let wish = json!({ "templateID": "base" });
    let answer = scene.testbed.request("POST", "/v2/sandboxes", &wish);
    assert_eq!(answer.status, 503, "{}", answer.body);
    scene.pooled.delete();
    assert_eq!(scene.burst_crossing(), 0);
}

#[test]
fn cleanup_opens_it_and_leaves_nothing() {
    let scene = InterfacePoolScenario::with_config("");
    scene.testbed.stop_agent();
    assert_eq!(scene.burst_crossing(), 0);
    let agent = scene.testbed.agent();
    let mut command = agent.cli_command().or_fail("policy-agent");
    let config = agent.config_path();
    // In the agent's namespace: clsact filters are found by the names of their interfaces.
    let inside = scene.testbed.network.host.enter().or_fail("entering the host");
    let output = command.arg("cleanup").arg("--config").arg(config).output().or_fail("cleaning up");
    drop(inside);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("interface {} detached", scene.pooled.interface)), "{said}");
    // The kernel releases links shortly after their pins.
    eventually("it is open", || {
        (scene.pooled.probe_tcp(DENIED_ADDRESS, test_servers::ECHO_PORT) == ProbeResult::Answered)
            .then_some(())
    })
    .or_fail("cleaning up");
    let directory = agent.bpffs().path();
    assert!(said.contains(&format!("{}: pins removed", directory.display())), "{said}");
    assert!(!directory.exists());
}

#[test]
fn cleanup_says_what_it_left_to_others() {
    let scene = InterfacePoolScenario::with_config("");
    let stage = Testbed::with_config(
        "[gateway]\ndomain = \"sandbox.example.com\"\nhttps = \"127.0.0.1:8443\"",
    );
    let agent = stage.agent();
    let certificate = agent.state_dir().join("gateway");
    assert!(certificate.exists());
    let config = agent.config_path();
    drop(agent);
    stage.stop_agent();
    let cleaned = stage.cli(&["cleanup", "--config", &config.to_string_lossy()]);
    assert_eq!(cleaned.exit_code, 0, "{cleaned:?}");
    assert!(cleaned.stdout.contains("certificate and key removed"), "{cleaned:?}");
    assert!(!certificate.exists());
    let (ours, mine) = (scene.testbed.agent(), stage.agent());
    let other = ours.bpffs().path();
    // If each has its own file system, neither can know of the other.
    if other.parent() == mine.bpffs().path().parent() {
        let stays = format!("with pins in {}: ", other.display());
        assert!(cleaned.stderr.contains(&stays), "{cleaned:?}");
    }
    drop(ours);
    assert_eq!(scene.burst_crossing(), 0, "the other agent's interface is shut as before");
}

#[test]
fn the_old_name_of_the_key_works_and_is_warned_of() {
    let stage = Testbed::without_agent("");
    let guest = stage.add_sandbox();
    let config = stage.agent().config_path();
    let text = std::fs::read_to_string(&config).or_fail("the configuration");
    let (interface, addresses) = (&guest.interface, json!(guest.addresses()));
    let slot = format!("[[slots]]\ninterface = {interface:?}\naddresses = {addresses}\n");
    std::fs::write(&config, text + &slot).or_fail("writing the configuration");
    stage.restart_agent();
    let made = stage.request("POST", "/v2/sandboxes", &json!({ "templateID": "base" }));
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(stage.agent().log_tail().contains("[[slots]] is called [[interfaces]] now"));
}

#[test]
fn an_interface_with_the_default_route_is_not_closed() {
    let stage = Testbed::without_agent("");
    let (guest, other) = (stage.add_sandbox(), stage.add_sandbox());
    add_pool_interface(&stage, UPLINK_INTERFACE, guest.addressing);
    let scene = InterfacePoolScenario { pooled: guest, applied: other, testbed: stage };
    scene.start_agent();
    scene.applied.assert_reaches(ALLOWED_ADDRESS);
    let made = scene.testbed.request("POST", "/v2/sandboxes", &json!({ "templateID": "base" }));
    assert_eq!(made.status, 503, "{}", made.body);
    assert!(scene.testbed.agent().log_tail().contains("carries the default route"));
}

/// When the agent's clock jumps, leases continue. The clock only matters for a lease that spans a
/// restart.
#[test]
fn a_clock_that_jumps_ends_no_lease_and_opens_nothing() {
    let scene = InterfacePoolScenario::without_agent("");
    let clock = scene.testbed.agent_mut().use_fake_clock().or_fail("a clock of its own");
    scene.start_agent();
    let sandbox = scene.create_sandbox(600);
    let tally = scene.applied.start_counted_flood();
    let first = scene.lease_end(&sandbox);
    let mut ends = first;
    for (offset, days) in [("+400d", 400), ("-400d", -400), ("+0", 0)] {
        clock.set_offset(offset).or_fail(offset);
        assert_eq!(scene.lease_end(&sandbox), ends, "{offset}: its end moved");
        scene.pooled.assert_reaches(ALLOWED_ADDRESS);
        scene.pooled.assert_refused(DENIED_ADDRESS);
        scene.applied.allow_only(&ALLOWED_ADDRESSES);
        // The agent's clock did jump.
        let path = format!("{sandbox}/timeout");
        let answer = scene.testbed.request("POST", &path, &json!({ "timeout": 600 }));
        assert_eq!(answer.status, 204, "{}", answer.body);
        ends = scene.lease_end(&sandbox);
        let days_off =
            (ends.duration_since(first).as_secs() + DAY_SECONDS / 2).div_euclid(DAY_SECONDS);
        assert_eq!(days_off, days, "{offset}");
    }
    tally.assert_no_leak_or_loss("clock jumps by 400 days, forth and back");
    scene.testbed.kill_agent();
    clock.set_offset("+1h").or_fail("setting the clock");
    scene.testbed.restart_agent();
    eventually("its time is over", || (!scene.exists(&sandbox)).then_some(())).or_fail("waiting");
    assert_eq!(scene.burst_crossing(), 0);
}
