//! Interfaces of `[[interfaces]]`: what is behind one reaches nothing unless a sandbox has it.

use std::{fs::File, io::Write as _, sync::Arc};

use jiff::Timestamp;
use policy_tests::{
    patience::eventually,
    probe::Seen,
    server,
    stage::{Flood, Guest, MARKER_TO, OPENED, OrFail as _, Stage, ip},
    wire::{Wire, carries},
    world::{host::UPLINK, sandbox::Identity},
};
use serde_json::{Value, json};

const CLSACT: &str = "[dataplane]\nattach = \"clsact\"";
const XDP: &str = "[dataplane]\nmode = \"xdp\"";
/// What a burst is sent to: the sandboxes created here may reach it.
const OPEN: &str = "8.8.8.8";
/// They may not reach this.
const CLOSED: &str = "8.8.8.9";
/// In seconds.
const DAY: i64 = 86_400;
/// Frames of a burst.
const BURST: usize = 50;

/// A stage with one interface in `[[interfaces]]`.
struct Scene {
    /// Behind it.
    guest: Guest,
    /// A sandbox of `apply`, whose packets show that those of the guest would have come through.
    other: Guest,
    stage: Arc<Stage>,
}

impl Scene {
    /// The agent is configured, but does not run.
    fn before_the_agent(config: &str) -> Self {
        let stage = Stage::without_agent(config);
        let (guest, other) = (stage.sandbox(), stage.sandbox());
        name_slot(&stage, &guest.interface, guest.identity);
        Self { guest, other, stage }
    }

    fn with(config: &str) -> Self {
        let scene = Self::before_the_agent(config);
        scene.start();
        scene
    }

    fn start(&self) {
        self.stage.restart();
        self.other.may_only_reach(&OPENED);
    }

    /// Creates a sandbox on the interface: its path.
    fn create(&self, timeout: u32) -> String {
        let network = json!({ "allowOut": OPENED, "denyOut": ["0.0.0.0/0"] });
        let wish = json!({ "templateID": "base", "timeout": timeout, "network": network });
        let answer = self.stage.request("POST", "/v2/sandboxes", &wish);
        assert_eq!(answer.code, 201, "{}", answer.body);
        let id = answer.json()["sandboxID"].as_str().or_fail("an ID").to_owned();
        format!("/sandboxes/{id}")
    }

    fn delete(&self, path: &str) {
        let answer = self.stage.request("DELETE", path, &Value::Null);
        assert_eq!(answer.code, 204, "{}", answer.body);
    }

    fn is_known(&self, path: &str) -> bool {
        self.stage.request("GET", path, &Value::Null).code == 200
    }

    /// When its lease ends.
    fn ends(&self, path: &str) -> Timestamp {
        let answer = self.stage.request("GET", path, &Value::Null).json();
        let ends = answer["endAt"].as_str().or_fail("an end");
        ends.parse().or_fail(ends)
    }

    /// How many frames of a burst to what sandboxes may reach come through.
    fn crossing(&self) -> usize {
        let frame = self.guest.sender().udp(ip(OPEN), server::CLOSED, &self.guest.token());
        let (inside, beyond) = (self.guest.wire(), self.guest.beyond_the_host());
        for _ in 0..BURST {
            inside.send(&frame).or_fail("sending a raw frame");
        }
        self.passed(&beyond)
    }

    /// How many frames of the guest have come beyond the host by now.
    fn passed(&self, beyond: &Wire) -> usize {
        // What was on its way before the second marker has arrived.
        self.other.crossing(&[]);
        self.other.crossing(&[]);
        let token = self.guest.token();
        let frames = std::iter::from_fn(|| beyond.next().or_fail("reading"));
        frames.filter(|frame| carries(frame, &token)).count()
    }
}

/// Adds an interface to `[[interfaces]]`.
fn name_slot(stage: &Stage, interface: &str, identity: Identity) {
    let file = File::options().append(true).open(stage.agent().config());
    let (mut file, addresses) =
        (file.or_fail("the configuration"), [identity.v4().to_string(), identity.v6().to_string()]);
    writeln!(file, "[[interfaces]]\ninterface = {interface:?}\naddresses = {addresses:?}")
        .or_fail("writing the configuration");
}

/// A flood to what no sandbox may reach, from before the agent's start through everything that
/// happens to the interface.
fn nothing_gets_through_from_the_start_on(config: &str) {
    let scene = Scene::before_the_agent(config);
    let guest = &scene.guest;
    guest.reaches(MARKER_TO);
    let denied = guest.sender().udp(ip(CLOSED), server::CLOSED, &guest.token());
    let flood = Flood::of(guest.wire(), vec![denied]);
    let open = guest.beyond_the_host();
    let crosses = |frame: &[u8]| carries(frame, &guest.token());
    open.until(crosses).or_fail("it crosses before the agent runs");
    scene.start();
    scene.passed(&open);
    let beyond = guest.beyond_the_host();
    for _ in 0..2 {
        let sandbox = scene.create(300);
        guest.reaches(OPEN);
        scene.delete(&sandbox);
    }
    scene.stage.kill();
    scene.stage.restart();
    let sandbox = scene.create(1);
    guest.reaches(OPEN);
    eventually("its time is over", || (!scene.is_known(&sandbox)).then_some(())).or_fail("waiting");
    assert_eq!(scene.passed(&beyond), 0);
    assert!(flood.is_under_way());
    assert!(flood.end() > 0);
}

#[test]
fn handed_out_and_taken_back_under_a_flood_no_packet_gets_through() {
    nothing_gets_through_from_the_start_on("");
}

#[test]
fn nor_with_filters_of_clsact() {
    nothing_gets_through_from_the_start_on(CLSACT);
}

#[test]
fn nor_with_early_drop() {
    nothing_gets_through_from_the_start_on(XDP);
}

/// Before, between and after sandboxes, and whether the agent runs or not.
fn only_with_a_sandbox_is_anything_reached(config: &str) {
    let scene = Scene::with(config);
    assert_eq!(scene.crossing(), 0, "before the first sandbox");
    let sandbox = scene.create(300);
    assert_eq!(scene.crossing(), BURST, "with a sandbox");
    scene.guest.reaches(OPEN);
    scene.guest.is_refused(CLOSED);
    scene.stage.kill();
    scene.stage.restart();
    assert!(scene.is_known(&sandbox));
    assert_eq!(scene.crossing(), BURST, "the next agent knows it");
    scene.delete(&sandbox);
    assert_eq!(scene.crossing(), 0, "after it was deleted");
    scene.stage.kill();
    assert_eq!(scene.crossing(), 0, "while no agent runs");
    scene.stage.restart();
    assert_eq!(scene.crossing(), 0, "after the agent has come back");
    scene.create(300);
    scene.guest.reaches(OPEN);
    scene.guest.is_refused(CLOSED);
}

#[test]
fn what_is_behind_it_reaches_nothing_unless_a_sandbox_has_it() {
    only_with_a_sandbox_is_anything_reached("");
}

#[test]
fn and_the_same_with_filters_of_clsact() {
    only_with_a_sandbox_is_anything_reached(CLSACT);
}

#[test]
fn a_lease_that_runs_out_shuts_the_interface() {
    let scene = Scene::with("");
    let sandbox = scene.create(1);
    eventually("its time is over", || (!scene.is_known(&sandbox)).then_some(())).or_fail("waiting");
    assert_eq!(scene.crossing(), 0);
}

#[test]
fn a_lease_that_ran_out_while_no_agent_ran_ends_at_the_start() {
    let scene = Scene::with("");
    let sandbox = scene.create(1);
    let shown = scene.stage.request("GET", &sandbox, &Value::Null).json();
    let ends: Timestamp = shown["endAt"].as_str().or_fail("an end").parse().or_fail("a time");
    scene.stage.kill();
    assert_eq!(scene.crossing(), BURST, "the kernel goes on enforcing");
    eventually("its time is over", || (Timestamp::now() > ends).then_some(())).or_fail("waiting");
    scene.stage.restart();
    assert!(!scene.is_known(&sandbox));
    assert_eq!(scene.crossing(), 0);
}

#[test]
fn an_interface_that_appears_later_is_shut() {
    let scene = Scene::before_the_agent("");
    let late = Identity { number: scene.other.identity.number + 1 };
    name_slot(&scene.stage, &format!("sb{}", late.number), late);
    scene.start();
    let guest = scene.stage.sandbox();
    assert_eq!(guest.identity.number, late.number);
    let scene = Scene { guest, ..scene };
    eventually("it is shut", || (scene.crossing() == 0).then_some(())).or_fail("waiting");
    scene.create(300);
    scene.create(300);
    scene.guest.reaches(OPEN);
}

#[test]
fn a_sandbox_of_apply_may_have_it_and_leaves_it_shut() {
    let scene = Scene::with("");
    scene.guest.may_only_reach(&OPENED);
    assert_eq!(scene.crossing(), BURST);
    let wish = json!({ "templateID": "base" });
    let answer = scene.stage.request("POST", "/v2/sandboxes", &wish);
    assert_eq!(answer.code, 503, "{}", answer.body);
    scene.guest.delete();
    assert_eq!(scene.crossing(), 0);
}

#[test]
fn cleanup_opens_it_and_leaves_nothing() {
    let scene = Scene::with("");
    scene.stage.stop();
    assert_eq!(scene.crossing(), 0);
    let agent = scene.stage.agent();
    let mut command = agent.command().or_fail("policy-agent");
    let config = agent.config();
    // Where the agent ran: filters of clsact are found by the names of their interfaces.
    let inside = scene.stage.world.host.enter().or_fail("entering the host");
    let output = command.arg("cleanup").arg("--config").arg(config).output().or_fail("cleaning up");
    drop(inside);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("interface {} detached", scene.guest.interface)), "{said}");
    // The kernel lets go of links a moment after their pins.
    eventually("it is open", || {
        (scene.guest.tcp(CLOSED, server::ECHO) == Seen::Answered).then_some(())
    })
    .or_fail("cleaning up");
    let directory = agent.bpffs().directory();
    assert!(said.contains(&format!("{}: pins removed", directory.display())), "{said}");
    assert!(!directory.exists());
}

#[test]
fn cleanup_says_what_it_left_to_others() {
    let scene = Scene::with("");
    let stage =
        Stage::with("[gateway]\ndomain = \"sandbox.example.com\"\nhttps = \"127.0.0.1:8443\"");
    let agent = stage.agent();
    let certificate = agent.state_dir().join("gateway");
    assert!(certificate.exists());
    let config = agent.config();
    drop(agent);
    stage.stop();
    let cleaned = stage.cli(&["cleanup", "--config", &config.to_string_lossy()]);
    assert_eq!(cleaned.code, 0, "{cleaned:?}");
    assert!(cleaned.stdout.contains("certificate and key removed"), "{cleaned:?}");
    assert!(!certificate.exists());
    let (ours, mine) = (scene.stage.agent(), stage.agent());
    let other = ours.bpffs().directory();
    // Where each has a file system of its own, neither can know of the other.
    if other.parent() == mine.bpffs().directory().parent() {
        let stays = format!("with pins in {}: ", other.display());
        assert!(cleaned.stderr.contains(&stays), "{cleaned:?}");
    }
    drop(ours);
    assert_eq!(scene.crossing(), 0, "the other agent's interface is shut as before");
}

#[test]
fn the_old_name_of_the_key_works_and_is_warned_of() {
    let stage = Stage::without_agent("");
    let guest = stage.sandbox();
    let config = stage.agent().config();
    let text = std::fs::read_to_string(&config).or_fail("the configuration");
    let (interface, addresses) = (&guest.interface, json!(guest.addresses()));
    let slot = format!("[[slots]]\ninterface = {interface:?}\naddresses = {addresses}\n");
    std::fs::write(&config, text + &slot).or_fail("writing the configuration");
    stage.restart();
    let made = stage.request("POST", "/v2/sandboxes", &json!({ "templateID": "base" }));
    assert_eq!(made.code, 201, "{}", made.body);
    assert!(stage.agent().log().contains("[[slots]] is called [[interfaces]] now"));
}

#[test]
fn an_interface_that_carries_the_default_route_is_not_shut() {
    let stage = Stage::without_agent("");
    let (guest, other) = (stage.sandbox(), stage.sandbox());
    name_slot(&stage, UPLINK, guest.identity);
    let scene = Scene { guest, other, stage };
    scene.start();
    scene.other.reaches(OPEN);
    let made = scene.stage.request("POST", "/v2/sandboxes", &json!({ "templateID": "base" }));
    assert_eq!(made.code, 503, "{}", made.body);
    assert!(scene.stage.agent().log().contains("carries the default route"));
}

/// When the agent's clock jumps, leases go on; by that clock a lease ends only across a restart.
#[test]
fn a_clock_that_jumps_ends_no_lease_and_opens_nothing() {
    let scene = Scene::before_the_agent("");
    let clock = scene.stage.agent_mut().with_clock().or_fail("a clock of its own");
    scene.start();
    let sandbox = scene.create(600);
    let tally = scene.other.tally();
    let first = scene.ends(&sandbox);
    let mut ends = first;
    for (offset, days) in [("+400d", 400), ("-400d", -400), ("+0", 0)] {
        clock.set(offset).or_fail(offset);
        assert_eq!(scene.ends(&sandbox), ends, "{offset}: its end moved");
        scene.guest.reaches(OPEN);
        scene.guest.is_refused(CLOSED);
        scene.other.may_only_reach(&OPENED);
        // The agent's clock did jump.
        let path = format!("{sandbox}/timeout");
        let answer = scene.stage.request("POST", &path, &json!({ "timeout": 600 }));
        assert_eq!(answer.code, 204, "{}", answer.body);
        ends = scene.ends(&sandbox);
        let days_off = (ends.duration_since(first).as_secs() + DAY / 2).div_euclid(DAY);
        assert_eq!(days_off, days, "{offset}");
    }
    tally.is_clean("clock jumps by 400 days, forth and back");
    scene.stage.kill();
    clock.set("+1h").or_fail("setting the clock");
    scene.stage.restart();
    eventually("its time is over", || (!scene.is_known(&sandbox)).then_some(())).or_fail("waiting");
    assert_eq!(scene.crossing(), 0);
}
