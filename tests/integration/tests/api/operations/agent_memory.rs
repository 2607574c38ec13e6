//! The agent's memory is small when idle, and released after bursts.

use std::{fs, thread};

use policy_testbed::{
    agent::send_request_to,
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};
use serde_json::json;

/// The limit of an idle agent's anonymous memory in KiB. Its code and the ring buffer of events (8
/// MiB) are not included.
const IDLE_LIMIT_KIB: u64 = 48 << 10;
/// The growth in KiB that bursts may leave.
const GROWTH_LIMIT_KIB: u64 = 24 << 10;

const BURSTS: usize = 20;
const CONCURRENT_REQUESTS: usize = 8;
/// The entries of a policy to explain, of about 20 bytes each.
const POLICY_ENTRIES: usize = 20_000;

/// The anonymous memory in KiB.
#[track_caller]
fn anonymous_kib(pid: u32) -> u64 {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(file).or_fail("the agent's memory");
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let value = line.and_then(|line| line.trim().strip_suffix(" kB"));
    value.and_then(|value| value.parse().ok()).or_fail(&text)
}

#[test]
fn an_agent_is_small_when_idle_and_after_bursts() {
    let stage = Testbed::with_config("");
    let pid = stage.agent().pid().or_fail("the agent's process");
    let within = |what: &str, limit: u64| {
        let mut now = 0;
        let small = || {
            now = anonymous_kib(pid);
            // The allocator releases memory only when the agent does something.
            stage.agent().is_healthy();
            (now <= limit).then_some(())
        };
        let found = eventually(what, small);
        eprintln!("{what}: {now} KiB");
        found.or_fail(&format!("{now} KiB and not {limit}"));
    };
    within("an idle agent is small", IDLE_LIMIT_KIB);
    let entries: Vec<String> =
        (0..POLICY_ENTRIES).map(|n| format!("203.0.{}.{}", n / 256 % 256, n % 256)).collect();
    let question = json!({
        "destination": "203.0.113.7",
        "spec": { "sandboxID": "web", "interface": "tap0", "addresses": ["192.0.2.7"],
            "network": { "denyOut": entries } },
    });
    let (question, socket) = (question.to_string(), stage.agent().socket_path());
    for _ in 0..BURSTS {
        thread::scope(|scope| {
            for _ in 0..CONCURRENT_REQUESTS {
                scope.spawn(|| {
                    let answer = send_request_to(&socket, "POST", "/agent/v1/explain", &question);
                    assert_eq!(answer.or_fail("asking").status, 200);
                });
            }
        });
    }
    within("an agent is small after bursts", IDLE_LIMIT_KIB + GROWTH_LIMIT_KIB);
}
