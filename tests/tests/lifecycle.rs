//! Killing, stopping, starting and replacing agents: the kernel goes on enforcing.

use std::net::TcpStream;

use policy_tests::{
    agent::Agent,
    probe, server,
    stage::{Flood, MARKER_TO, OPENED, OrFail as _, Stage, ip},
    wire::carries,
};
use serde_json::{Value, json};

#[test]
fn killed_and_restarted_under_a_flood_no_packet_gets_through() {
    let (stage, sandbox) = Stage::with_sandbox();
    let denied = sandbox.sender().udp(ip("8.8.8.9"), server::CLOSED, &sandbox.token());
    sandbox.reaches(MARKER_TO);
    let beyond = sandbox.beyond_the_host();
    let flood = Flood::of(sandbox.wire(), vec![denied]);
    for _ in 0..3 {
        stage.kill();
        assert!(sandbox.crossing(&[]).is_empty(), "while no agent runs");
        stage.restart();
        sandbox.may_only_reach(&OPENED);
        assert!(sandbox.crossing(&[]).is_empty(), "after it has come back");
    }
    assert!(flood.is_under_way());
    let sent = flood.end();
    assert!(sandbox.crossing(&[]).is_empty());
    let mut leaked = 0;
    while let Some(frame) = beyond.next().or_fail("reading") {
        leaked += u64::from(carries(&frame, &sandbox.token()));
    }
    assert_eq!(leaked, 0, "of {sent} packets");
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], sent, "all were counted");
}

#[test]
fn an_allowed_connection_survives_the_agent() {
    let (stage, sandbox) = Stage::with_sandbox();
    let mut stream = sandbox.connection("8.8.8.8");
    survives_the_agent(&stage, &mut stream);
}

#[test]
fn an_inbound_connection_survives_the_agent() {
    let (stage, sandbox) = Stage::with_sandbox();
    let servers = server::Servers::start(&sandbox.inside, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    let to = (sandbox.identity.v4(), server::ECHO).into();
    let mut stream = probe::connect(&stage.world.internet, to).or_fail("connecting");
    survives_the_agent(&stage, &mut stream);
}

fn survives_the_agent(stage: &Stage, stream: &mut TcpStream) {
    probe::echo(stream, b"before").or_fail("before");
    stage.kill();
    probe::echo(stream, b"while it is away").or_fail("while no agent runs");
    stage.restart();
    probe::echo(stream, b"after").or_fail("after it has come back");
}

#[test]
fn stopped_kindly_it_leaves_enforcement_in_place() {
    let (stage, sandbox) = Stage::with_sandbox();
    stage.stop();
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
}

#[test]
fn started_again_it_knows_its_sandboxes_and_goes_on_counting() {
    let (stage, sandbox) = Stage::with_sandbox();
    sandbox.is_refused("8.8.8.9");
    let before = sandbox.status();
    stage.kill();
    sandbox.is_refused("8.8.8.9");
    stage.restart();
    let after = sandbox.status();
    assert_eq!(after["status"], "enforcing");
    assert_eq!(after["network"], before["network"]);
    let denied = |status: &Value| status["denied"]["packets"].as_u64().unwrap_or(0);
    assert_eq!(denied(&after), 2 * denied(&before), "{before}\n{after}");
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.reaches("8.8.8.9");
    sandbox.is_refused("8.8.8.8");
    sandbox.event("a denial after the restart", |event| event["destination"] == "8.8.8.8");
}

#[test]
fn a_second_agent_refuses_to_start() {
    let (stage, sandbox) = Stage::with_sandbox();
    let (config, socket) = (stage.agent().config(), stage.agent().socket());
    let other = stage.agent().directory().join("other.sock");
    for socket in [&socket, &other] {
        let (config, socket) = (config.to_string_lossy(), socket.to_string_lossy());
        let second = stage.cli(&["--socket", &socket, "run", "--config", &config]);
        assert_eq!(second.code, 1, "{second:?}");
        assert!(!second.stderr.is_empty());
    }
    assert!(stage.agent().is_healthy());
    sandbox.is_refused("8.8.8.9");
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.reaches("8.8.8.9");
}

#[test]
fn agents_with_directories_of_their_own_do_not_meet() {
    let (stage, sandbox) = Stage::with_sandbox();
    let mut other = Agent::configure("").or_fail("configuring another agent");
    other.start(&stage.world.host).or_fail("starting another agent");
    let elsewhere = stage.sandbox();
    let path = format!("/agent/v1/sandboxes/{}", elsewhere.id);
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.9"] });
    let spec = elsewhere.spec(&json!({ "network": network })).to_string();
    let answer = other.request("PUT", &path, &spec).or_fail("asking the other agent");
    assert_eq!(answer.code, 200, "{}", answer.body);
    elsewhere.reaches("8.8.8.9");
    elsewhere.is_refused("8.8.8.8");
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
}

#[test]
fn a_new_sandbox_is_closed_from_the_moment_the_api_answers() {
    let stage = Stage::with("");
    for _ in 0..5 {
        let sandbox = stage.sandbox();
        sandbox.reaches(MARKER_TO);
        let denied = sandbox.sender().udp(ip("8.8.8.9"), server::CLOSED, &sandbox.token());
        let beyond = sandbox.beyond_the_host();
        let flood = Flood::of(sandbox.wire(), vec![denied]);
        let crosses = |frame: &[u8]| carries(frame, &sandbox.token());
        beyond.until(crosses).or_fail("it crosses before the agent knows the sandbox");
        sandbox.may_only_reach(&OPENED);
        // What was on its way when the API answered arrives before this marker.
        sandbox.crossing(&[]);
        assert!(sandbox.crossing(&[]).is_empty());
        assert!(flood.is_under_way());
    }
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    use std::os::unix::process::CommandExt as _;
    let directory = tempfile::tempdir().or_fail("a directory");
    let nobody = 65534;
    std::os::unix::fs::chown(directory.path(), Some(nobody), Some(nobody)).or_fail("chown");
    let binary = directory.path().join("policy-agent");
    std::fs::copy(policy_tests::agent::binary().or_fail("the binary"), &binary).or_fail("copying");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let mut command = std::process::Command::new(&binary);
    command.args(["--socket", &at("agent.sock"), "run", "--state-dir", &at("state")]);
    let output = command.args(["--bpffs", &at("pins")]).uid(nobody).gid(nobody).output();
    let output = output.or_fail("running the agent as nobody");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("policy-agent doctor"), "it says what to do: {said}");
}
