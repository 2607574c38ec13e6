//! Live denials: `events` shows them, and names the rule that decided.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use policy_testbed::{
    probe::ProbeKind,
    testbed::{OrFail as _, SharedTestbed},
};
use serde_json::{Value, json};

use crate::sandbox_with_rules;

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

#[test]
fn a_denial_becomes_an_event_that_names_its_rule() {
    let sandbox = sandbox_with_rules(&TESTBED);
    let denials = [
        (ProbeKind::Tcp(443), "203.0.113.10", "tcp"),
        (ProbeKind::Udp(53), "2001:db8:2::1", "udp"),
        (ProbeKind::Tcp(80), "169.254.169.254", "tcp"),
        (ProbeKind::Ping, "203.0.113.11", "icmp"),
        (ProbeKind::Ping, "2001:db8:2::1", "icmpv6"),
    ];
    for (how, to, protocol) in denials {
        sandbox.probe(how, to);
        let event = sandbox.wait_for_event(&format!("a denial of {how} to {to}"), |event| {
            event["destination"] == to && event["protocol"] == protocol
        });
        let explained = sandbox.testbed.cli(&["explain", &sandbox.id, to, "-o", "json"]).json();
        for field in ["reason", "line", "rule"] {
            assert_eq!(event[field], explained[field], "{field} of {event}");
        }
        assert_eq!(event["sandboxID"], json!(sandbox.id));
        assert_eq!(event["verdict"], "denied");
        if let ProbeKind::Tcp(port) | ProbeKind::Udp(port) = how {
            assert_eq!(event["destinationPort"], port, "{event}");
        }
    }
}

#[test]
fn events_of_another_sandbox_are_not_shown() {
    let (one, other) = (sandbox_with_rules(&TESTBED), sandbox_with_rules(&TESTBED));
    one.probe_tcp("203.0.113.10", 4711);
    one.wait_for_event("the denial", |event| event["destinationPort"] == 4711);
    let shown = one.testbed.cli(&["events", "--sandbox", &other.id, "-o", "json"]);
    let foreign = |event: &Value| event["sandboxID"] != json!(other.id);
    assert!(!shown.json_lines().iter().any(foreign), "{shown:?}");
}

#[test]
fn an_old_denial_is_named_by_the_rules_of_its_time() {
    let sandbox = sandbox_with_rules(&TESTBED);
    sandbox.probe_tcp("203.0.113.10", 4712);
    sandbox.wait_for_event("the denial", |event| event["destinationPort"] == 4712);
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"] }));
    sandbox.probe_tcp("203.0.113.10", 4713);
    let new = sandbox.wait_for_event("the new denial", |event| event["destinationPort"] == 4713);
    assert_eq!((&new["rule"]["index"], &new["rule"]["entry"]), (&json!(0), &json!("0.0.0.0/0")));
    let old = sandbox.wait_for_event("the old denial", |event| event["destinationPort"] == 4712);
    assert_eq!(old["rule"]["entry"], "203.0.113.0/24");
}

#[test]
fn no_internet_is_named_as_such() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_config(&json!({ "allowInternetAccess": false }));
    sandbox.probe_tcp("8.8.8.8", 4714);
    let event = sandbox.wait_for_event("the denial", |event| event["destinationPort"] == 4714);
    assert_eq!(event["rule"]["list"], "allowInternetAccess");
    assert_eq!(event["rule"]["entry"], "false");
}

#[test]
fn events_are_followed_as_they_happen() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    let mut command = sandbox.testbed.agent().cli_command().or_fail("policy-agent");
    command.args(["events", "--follow", "--all", "-o", "json", "--sandbox", &sandbox.id]);
    let mut follower = command.stdout(Stdio::piped()).spawn().or_fail("following");
    let lines = BufReader::new(follower.stdout.take().or_fail("its output")).lines();
    // The time when the follower is connected is unknown, so new denials are triggered until it
    // reports one.
    let (ended, wanted) = (AtomicBool::new(false), [4801, 4802]);
    let seen = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2_000 {
                sandbox.probe_tcp("8.8.8.8", wanted[0]);
                sandbox.probe_tcp("8.8.8.9", wanted[1]);
                if ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let mut verdicts = [None, None];
        for line in lines {
            let event: Value = serde_json::from_str(&line.or_fail("a line")).or_fail("JSON");
            for (port, verdict) in wanted.iter().zip(&mut verdicts) {
                if event["destinationPort"] == *port {
                    *verdict = event["verdict"].as_str().map(str::to_owned);
                }
            }
            if verdicts.iter().all(Option::is_some) {
                break;
            }
        }
        ended.store(true, Ordering::Relaxed);
        verdicts
    });
    let _ = follower.kill();
    let _ = follower.wait();
    assert_eq!(seen, [Some("denied".to_owned()), Some("allowed".to_owned())]);
}

#[test]
fn events_read_like_sentences() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.probe_tcp("8.8.8.8", 4803);
    sandbox.wait_for_event("the denial", |event| event["destinationPort"] == 4803);
    let events = sandbox.testbed.cli(&["events", "--sandbox", &sandbox.id]);
    let line = events.stdout.lines().find(|line| line.contains(":4803")).or_fail("its line");
    for word in [sandbox.id.as_str(), "denied", "deny_out", "tcp", "network.denyOut[0]: 8.8.8.8"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }
}
