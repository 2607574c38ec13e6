//! Killing, stopping, starting and replacing agents: the kernel continues to enforce.

use std::net::TcpStream;

use policy_testbed::{
    agent::AgentProcess,
    packet_socket::contains_bytes,
    probe, test_servers,
    testbed::{ALLOWED_ADDRESSES, FrameFlood, MARKER_ADDRESS, OrFail as _, Testbed, parse_ip},
};
use serde_json::{Value, json};

#[test]
fn killed_and_restarted_under_a_flood_no_packet_gets_through() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let denied = sandbox.frame_builder().udp(
        parse_ip("8.8.8.9"),
        test_servers::CLOSED_PORT,
        &sandbox.frame_token(),
    );
    sandbox.assert_reaches(MARKER_ADDRESS);
    let beyond = sandbox.open_uplink_socket();
    let flood = FrameFlood::start(sandbox.open_packet_socket(), vec![denied]);
    for _ in 0..3 {
        stage.kill_agent();
        assert!(sandbox.frames_crossing(&[]).is_empty(), "while no agent runs");
        stage.restart_agent();
        sandbox.allow_only(&ALLOWED_ADDRESSES);
        assert!(sandbox.frames_crossing(&[]).is_empty(), "after it has come back");
    }
    assert!(flood.is_running());
    let sent = flood.stop();
    assert!(sandbox.frames_crossing(&[]).is_empty());
    let mut leaked = 0;
    while let Some(frame) = beyond.try_receive().or_fail("reading") {
        leaked += u64::from(contains_bytes(&frame, &sandbox.frame_token()));
    }
    assert_eq!(leaked, 0, "of {sent} packets");
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], sent, "all were counted");
}

#[test]
fn an_allowed_connection_survives_the_agent() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let mut stream = sandbox.connect_echo("8.8.8.8");
    assert_survives_restart(&stage, &mut stream);
}

#[test]
fn an_inbound_connection_survives_the_agent() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let servers = test_servers::TestServers::start(&sandbox.namespace, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    let to = (sandbox.addressing.v4(), test_servers::ECHO_PORT).into();
    let mut stream = probe::connect(&stage.network.internet, to).or_fail("connecting");
    assert_survives_restart(&stage, &mut stream);
}

fn assert_survives_restart(stage: &Testbed, stream: &mut TcpStream) {
    probe::echo(stream, b"before").or_fail("before");
    stage.kill_agent();
    probe::echo(stream, b"while it is away").or_fail("while no agent runs");
    stage.restart_agent();
    probe::echo(stream, b"after").or_fail("after it has come back");
}

#[test]
fn a_clean_stop_leaves_enforcement_in_place() {
    let (stage, sandbox) = Testbed::with_sandbox();
    stage.stop_agent();
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn a_restarted_agent_knows_its_sandboxes_and_goes_on_counting() {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.assert_refused("8.8.8.9");
    let before = sandbox.status();
    stage.kill_agent();
    sandbox.assert_refused("8.8.8.9");
    stage.restart_agent();
    let after = sandbox.status();
    assert_eq!(after["status"], "enforcing");
    assert_eq!(after["network"], before["network"]);
    let denied = |status: &Value| status["denied"]["packets"].as_u64().unwrap_or(0);
    assert_eq!(denied(&after), 2 * denied(&before), "{before}\n{after}");
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
    sandbox.wait_for_event("a denial after the restart", |event| event["destination"] == "8.8.8.8");
}

#[test]
fn a_second_agent_refuses_to_start() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let (config, socket) = (stage.agent().config_path(), stage.agent().socket_path());
    let other = stage.agent().directory().join("other.sock");
    for socket in [&socket, &other] {
        let (config, socket) = (config.to_string_lossy(), socket.to_string_lossy());
        let second = stage.cli(&["--socket", &socket, "run", "--config", &config]);
        assert_eq!(second.exit_code, 1, "{second:?}");
        assert!(!second.stderr.is_empty());
    }
    assert!(stage.agent().is_healthy());
    sandbox.assert_refused("8.8.8.9");
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
}

#[test]
fn agents_with_separate_directories_do_not_interfere() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let mut other = AgentProcess::configure("").or_fail("configuring another agent");
    other.start(&stage.network.host).or_fail("starting another agent");
    let elsewhere = stage.add_sandbox();
    let path = format!("/agent/v1/sandboxes/{}", elsewhere.id);
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.9"] });
    let spec = elsewhere.sandbox_spec(&json!({ "network": network })).to_string();
    let answer = other.request("PUT", &path, &spec).or_fail("asking the other agent");
    assert_eq!(answer.status, 200, "{}", answer.body);
    elsewhere.assert_reaches("8.8.8.9");
    elsewhere.assert_refused("8.8.8.8");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn a_new_sandbox_is_enforced_from_the_moment_the_api_answers() {
    let stage = Testbed::with_config("");
    for _ in 0..5 {
        let sandbox = stage.add_sandbox();
        sandbox.assert_reaches(MARKER_ADDRESS);
        let denied = sandbox.frame_builder().udp(
            parse_ip("8.8.8.9"),
            test_servers::CLOSED_PORT,
            &sandbox.frame_token(),
        );
        let beyond = sandbox.open_uplink_socket();
        let flood = FrameFlood::start(sandbox.open_packet_socket(), vec![denied]);
        let crosses = |frame: &[u8]| contains_bytes(frame, &sandbox.frame_token());
        beyond.receive_until(crosses).or_fail("it crosses before the agent knows the sandbox");
        sandbox.allow_only(&ALLOWED_ADDRESSES);
        // Packets in flight when the API responded arrive before this marker.
        sandbox.frames_crossing(&[]);
        assert!(sandbox.frames_crossing(&[]).is_empty());
        assert!(flood.is_running());
    }
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    use std::os::unix::process::CommandExt as _;
    let directory = tempfile::tempdir().or_fail("a directory");
    let nobody = 65534;
    std::os::unix::fs::chown(directory.path(), Some(nobody), Some(nobody)).or_fail("chown");
    let binary = directory.path().join("policy-agent");
    std::fs::copy(policy_testbed::agent::agent_binary().or_fail("the binary"), &binary)
        .or_fail("copying");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let mut command = std::process::Command::new(&binary);
    command.args(["--socket", &at("agent.sock"), "run", "--state-dir", &at("state")]);
    let output = command.args(["--bpffs", &at("pins")]).uid(nobody).gid(nobody).output();
    let output = output.or_fail("running the agent as nobody");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("policy-agent doctor"), "it says what to do: {said}");
}
