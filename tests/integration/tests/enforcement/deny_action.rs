//! The effect of a denial on a program: an immediate error, or silence.

use std::time::Instant;

use etherparse::ip_number::{ICMP, IPV6_ICMP};
use policy_testbed::{
    packet_socket::{PacketSocket, PacketView, contains_bytes},
    probe::ProbeResult,
    test_servers,
    testbed::{MARKER_ADDRESS, OrFail as _, SharedTestbed, TestSandbox, parse_ip},
};
use serde_json::json;

static REJECT_TESTBED: SharedTestbed = SharedTestbed::with_config("");
static DROP_TESTBED: SharedTestbed =
    SharedTestbed::with_config("[dataplane]\ndeny_action = \"drop\"");

fn denied_sandbox(stage: &SharedTestbed) -> TestSandbox {
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&[MARKER_ADDRESS]);
    sandbox
}

#[test]
fn a_denied_attempt_fails_at_once() {
    let sandbox = denied_sandbox(&REJECT_TESTBED);
    for (number, address) in (1..).zip(["8.8.8.8", "2001:db8:1::1", "169.254.169.254", "fd99::1"]) {
        sandbox.assert_refused(address);
        // TCP, UDP and ping each send one packet. Without a reply they would retry after a second.
        assert_eq!(denied_packets(&sandbox), number * 3, "packets until {address} is refused");
    }
}

/// The number of denied packets.
#[track_caller]
fn denied_packets(sandbox: &TestSandbox) -> u64 {
    let counters = &sandbox.status()["counters"];
    let packets = |reason: &&str| counters[reason]["packets"].as_u64();
    ["deny_out", "platform_deny"].iter().filter_map(packets).sum()
}

#[test]
fn curl_says_that_it_could_not_connect() {
    let sandbox = denied_sandbox(&REJECT_TESTBED);
    for url in ["http://8.8.8.8/", "https://8.8.8.8/", "http://[2001:db8:1::1]/"] {
        // The kernel gives up after two minutes. curl's own time limit is shorter and has another
        // exit status.
        let (code, output) = run_in_sandbox(&sandbox, "curl", &["-sS", "--max-time", "60", url]);
        assert_eq!(code, Some(7), "curl {url}: {output}");
    }
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
    let (code, output) =
        run_in_sandbox(&sandbox, "curl", &["-sS", "--max-time", "60", "http://8.8.8.8/"]);
    assert_eq!((code, output.contains("8.8.8.8 answers")), (Some(0), true), "{output}");
}

#[test]
fn ping_says_that_it_is_prohibited() {
    let sandbox = denied_sandbox(&REJECT_TESTBED);
    let (_, v4) = run_in_sandbox(&sandbox, "ping", &["-n", "-c1", "-W2", "8.8.8.8"]);
    assert!(v4.contains("From 8.8.8.8") && v4.contains("Packet filtered"), "{v4}");
    let (_, v6) = run_in_sandbox(&sandbox, "ping", &["-n", "-c1", "-W2", "2001:db8:1::1"]);
    assert!(v6.contains("Administratively prohibited"), "{v6}");
}

#[test]
fn drop_is_silent() {
    let sandbox = denied_sandbox(&DROP_TESTBED);
    let wire = sandbox.open_packet_socket();
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        sandbox.assert_ignored(address);
    }
    assert_eq!(sandbox.probe_udp(MARKER_ADDRESS, test_servers::ECHO_PORT), ProbeResult::Answered);
    let from = |frame: &[u8]| PacketView::parse(frame).map(|view| view.source);
    let before = wire
        .receive_until(|frame| from(frame) == Some(parse_ip(MARKER_ADDRESS)))
        .or_fail("the marker");
    let answers = before.iter().filter(|frame| from(frame) == Some(parse_ip("8.8.8.8")));
    assert_eq!(answers.count(), 0);
}

#[test]
fn an_answer_comes_from_the_destination_and_is_well_formed() {
    let sandbox = denied_sandbox(&REJECT_TESTBED);
    for (to, icmp) in [("8.8.8.8", ICMP.0), ("2001:db8:1::1", IPV6_ICMP.0)] {
        let wire = sandbox.open_packet_socket();
        let sent = sandbox.frame_builder().udp(
            parse_ip(to),
            test_servers::DNS_PORT,
            b"a question of some length",
        );
        wire.send(&sent).or_fail("sending");
        let is_answer = |frame: &[u8]| {
            PacketView::parse(frame)
                .is_some_and(|view| view.source == parse_ip(to) && view.protocol == icmp)
        };
        let frame = first_frame(&wire, is_answer);
        let view = PacketView::parse(&frame).or_fail("an IP packet");
        assert!(view.has_valid_checksum());
        assert!(contains_bytes(view.payload, &sent[14..42]), "it quotes what it is about");
    }
}

#[test]
fn what_cannot_be_judged_is_never_answered() {
    let sandbox = denied_sandbox(&REJECT_TESTBED);
    let mut stranger = sandbox.frame_builder();
    stranger.v4 = "10.11.250.9".parse().or_fail("parsing");
    let frames =
        vec![stranger.udp(parse_ip("8.8.8.8"), test_servers::DNS_PORT, &sandbox.frame_token()); 10];
    assert!(sandbox.frames_crossing(&frames).is_empty());
    assert_eq!(sandbox.status()["counters"]["spoofed_ip"]["packets"], 10);
    let event =
        sandbox.wait_for_event("the spoofed packet", |event| event["reason"] == "spoofed_ip");
    assert_eq!(event["source"], "10.11.250.9");
}

#[test]
fn answers_are_rate_limited() {
    let sandbox = denied_sandbox(&REJECT_TESTBED);
    let frame = sandbox.frame_builder().udp(
        parse_ip("8.8.8.8"),
        test_servers::DNS_PORT,
        &sandbox.frame_token(),
    );
    let wire = sandbox.open_packet_socket();
    let begin = Instant::now();
    assert!(sandbox.frames_crossing(&vec![frame; 3000]).is_empty());
    let allowed = 201 + u64::try_from(begin.elapsed().as_millis()).or_fail("milliseconds") + 1;
    let mut answers = 0;
    while let Some(frame) = wire.try_receive().or_fail("reading") {
        answers += u64::from(
            PacketView::parse(&frame).is_some_and(|view| view.source == parse_ip("8.8.8.8")),
        );
    }
    assert!((1..=allowed).contains(&answers), "{answers} answers, {allowed} allowed");
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], 3000);
}

fn first_frame(wire: &PacketSocket, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let found = policy_testbed::wait::eventually("an answer", || {
        wire.try_receive().or_fail("reading").filter(|frame| wanted(frame))
    });
    found.or_fail("listening in the sandbox")
}

/// Runs a program in the sandbox and returns its exit code and all output.
fn run_in_sandbox(
    sandbox: &TestSandbox,
    program: &str,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let mut command = sandbox.namespace.command(program).or_fail("entering the sandbox");
    let output = command.args(arguments).env("LC_ALL", "C").output().or_fail(program);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
