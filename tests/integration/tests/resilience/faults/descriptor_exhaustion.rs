//! An agent without free file descriptors.

use std::{fs, process::Command, time::Instant};

use policy_testbed::{
    network::command,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::json;

use super::{assert_policy_can_change, report_duration};

#[test]
fn without_descriptors_nothing_opens_and_nothing_is_detached() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let tally = sandbox.start_counted_flood();
    // From none to almost enough, so that descriptors run out at every place in the code.
    let open = fs::read_dir(format!("/proc/{pid}/fd")).or_fail("its descriptors").count();
    for spare in (0..24).step_by(2) {
        set_descriptor_limit(pid, &(open + spare).to_string());
        try_policy_change(&sandbox);
        assert_eq!(tally.leaked_packets(), 0, "with {spare} descriptors to spare");
    }
    set_descriptor_limit(pid, "8192");
    let begin = Instant::now();
    let works = || stage.agent().is_healthy().then_some(());
    eventually("it answers again", works).or_fail("raising the limit");
    report_duration("no descriptors: an answer after there are some", begin);
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    let (sent, leaked, _) = tally.finish("no descriptors, changes tried");
    assert!(sent > 0 && leaked == 0, "{leaked} leaked");
    assert_eq!(stage.agent().pid(), Some(pid), "it is the same process");
    assert_eq!(sandbox.status()["status"], "enforcing");
    assert_policy_can_change(&sandbox);
}

#[test]
fn without_descriptors_what_is_allowed_goes_on() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let tally = sandbox.start_counted_flood();
    set_descriptor_limit(pid, "4");
    // Some interface checks fail during this time.
    while tally.rounds() < 1_000 {
        sandbox.assert_reaches("8.8.8.8");
    }
    set_descriptor_limit(pid, "8192");
    let works = || stage.agent().is_healthy().then_some(());
    eventually("it answers again", works).or_fail("raising the limit");
    tally.assert_no_leak_or_loss("no descriptors");
    assert_policy_can_change(&sandbox);
}

/// Requests a policy that denies the same and a little more. The request may be accepted or not.
fn try_policy_change(sandbox: &TestSandbox) {
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [ALLOWED_ADDRESSES[0], ALLOWED_ADDRESSES[1]] });
    let mut other = network.clone();
    other["allowOut"] = json!([ALLOWED_ADDRESSES[0], ALLOWED_ADDRESSES[1], "203.0.113.10"]);
    for network in [other, network] {
        let spec = sandbox.sandbox_spec(&json!({ "network": network })).to_string();
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        let socket = sandbox.testbed.agent().socket_path();
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "1", "-X", "PUT", "-d", &spec, "--unix-socket"]);
        let _ = curl.arg(socket).arg(format!("http://agent{path}")).output();
    }
}

fn set_descriptor_limit(pid: u32, soft: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]);
    command::run(&mut prlimit).or_fail("setting a limit");
}
