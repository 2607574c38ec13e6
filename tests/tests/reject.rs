//! How a denial feels to a program: at once, or in silence.

use std::time::Instant;

use etherparse::ip_number::{ICMP, IPV6_ICMP};
use policy_tests::{
    probe::Seen,
    server,
    stage::{Guest, MARKER_TO, OrFail as _, Shared, ip},
    wire::{View, Wire, carries},
};
use serde_json::{Value, json};

static REJECT: Shared = Shared::with("");
static DROP: Shared = Shared::with("[dataplane]\ndeny_action = \"drop\"");

fn deny_all() -> Value {
    json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [MARKER_TO] })
}

fn denied(stage: &Shared) -> Guest {
    let sandbox = stage.sandbox();
    sandbox.network(deny_all());
    sandbox
}

#[test]
fn a_denied_attempt_fails_at_once() {
    let sandbox = denied(&REJECT);
    for (number, address) in (1..).zip(["8.8.8.8", "2001:db8:1::1", "169.254.169.254", "fd99::1"]) {
        sandbox.is_refused(address);
        // TCP, UDP and ping: none is sent a second time, as it would be after a second without an answer.
        assert_eq!(denials(&sandbox), number * 3, "packets until {address} is refused");
    }
}

/// Packets that were denied.
#[track_caller]
fn denials(sandbox: &Guest) -> u64 {
    let counters = &sandbox.status()["counters"];
    let packets = |reason: &&str| counters[reason]["packets"].as_u64();
    ["deny_out", "platform_deny"].iter().filter_map(packets).sum()
}

#[test]
fn curl_says_that_it_could_not_connect() {
    let sandbox = denied(&REJECT);
    for url in ["http://8.8.8.8/", "https://8.8.8.8/", "http://[2001:db8:1::1]/"] {
        // The kernel gives up after two minutes, and curl before with another status.
        let (code, output) = run(&sandbox, "curl", &["-sS", "--max-time", "60", url]);
        assert_eq!(code, Some(7), "curl {url}: {output}");
    }
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
    let (code, output) = run(&sandbox, "curl", &["-sS", "--max-time", "60", "http://8.8.8.8/"]);
    assert_eq!((code, output.contains("8.8.8.8 answers")), (Some(0), true), "{output}");
}

#[test]
fn ping_says_that_it_is_prohibited() {
    let sandbox = denied(&REJECT);
    let (_, v4) = run(&sandbox, "ping", &["-n", "-c1", "-W2", "8.8.8.8"]);
    assert!(v4.contains("From 8.8.8.8") && v4.contains("Packet filtered"), "{v4}");
    let (_, v6) = run(&sandbox, "ping", &["-n", "-c1", "-W2", "2001:db8:1::1"]);
    assert!(v6.contains("Administratively prohibited"), "{v6}");
}

#[test]
fn drop_is_silent() {
    let sandbox = denied(&DROP);
    let wire = sandbox.wire();
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        sandbox.is_ignored(address);
    }
    assert_eq!(sandbox.udp(MARKER_TO, server::ECHO), Seen::Answered);
    let from = |frame: &[u8]| View::of(frame).map(|view| view.source);
    let before = wire.until(|frame| from(frame) == Some(ip(MARKER_TO))).or_fail("the marker");
    let answers = before.iter().filter(|frame| from(frame) == Some(ip("8.8.8.8")));
    assert_eq!(answers.count(), 0);
}

#[test]
fn an_answer_comes_from_the_destination_and_is_well_formed() {
    let sandbox = denied(&REJECT);
    for (to, icmp) in [("8.8.8.8", ICMP.0), ("2001:db8:1::1", IPV6_ICMP.0)] {
        let wire = sandbox.wire();
        let sent = sandbox.sender().udp(ip(to), server::DNS, b"a question of some length");
        wire.send(&sent).or_fail("sending");
        let is_answer = |frame: &[u8]| {
            View::of(frame).is_some_and(|view| view.source == ip(to) && view.protocol == icmp)
        };
        let frame = first(&wire, is_answer);
        let view = View::of(&frame).or_fail("an IP packet");
        assert!(view.is_sound());
        assert!(carries(view.payload, &sent[14..42]), "it quotes what it is about");
    }
}

#[test]
fn what_cannot_be_judged_is_never_answered() {
    let sandbox = denied(&REJECT);
    let mut stranger = sandbox.sender();
    stranger.v4 = "10.11.250.9".parse().or_fail("parsing");
    let frames = vec![stranger.udp(ip("8.8.8.8"), server::DNS, &sandbox.token()); 10];
    assert!(sandbox.crossing(&frames).is_empty());
    assert_eq!(sandbox.status()["counters"]["spoofed_ip"]["packets"], 10);
    let event = sandbox.event("the spoofed packet", |event| event["reason"] == "spoofed_ip");
    assert_eq!(event["source"], "10.11.250.9");
}

#[test]
fn answers_are_rate_limited() {
    let sandbox = denied(&REJECT);
    let frame = sandbox.sender().udp(ip("8.8.8.8"), server::DNS, &sandbox.token());
    let wire = sandbox.wire();
    let begin = Instant::now();
    assert!(sandbox.crossing(&vec![frame; 3000]).is_empty());
    let allowed = 201 + u64::try_from(begin.elapsed().as_millis()).or_fail("milliseconds") + 1;
    let mut answers = 0;
    while let Some(frame) = wire.next().or_fail("reading") {
        answers += u64::from(View::of(&frame).is_some_and(|view| view.source == ip("8.8.8.8")));
    }
    assert!((1..=allowed).contains(&answers), "{answers} answers, {allowed} allowed");
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], 3000);
}

fn first(wire: &Wire, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let found = policy_tests::patience::eventually("an answer", || {
        wire.next().or_fail("reading").filter(|frame| wanted(frame))
    });
    found.or_fail("listening in the sandbox")
}

/// Runs a program in the sandbox: its exit code, and all it said.
fn run(sandbox: &Guest, program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = sandbox.inside.command(program).or_fail("entering the sandbox");
    let output = command.args(arguments).env("LC_ALL", "C").output().or_fail(program);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
