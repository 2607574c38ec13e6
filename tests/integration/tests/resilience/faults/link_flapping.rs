//! A container that changes its end of a veth without a pause, while the host renames an interface
//! as fast. The kernel reports every change to the agent.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use policy_testbed::{
    testbed::{ALLOWED_ADDRESSES, MARKER_ADDRESS, OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::json;

use super::report_duration;

/// Times that each link changes there and back.
const FLAPS: usize = 1500;
/// The permitted growth of the agent's memory.
const MEMORY_GROWTH: usize = 12 << 20;
/// The permitted time of a change meanwhile, on a machine that runs other tests.
const CHANGE_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn links_that_change_without_a_pause_cost_no_memory_and_delay_nobody() {
    let (stage, hostile) = Testbed::with_sandbox();
    let (renamed, other) = (stage.add_sandbox(), stage.add_sandbox());
    [&renamed, &other].into_iter().for_each(|sandbox| sandbox.allow_only(&ALLOWED_ADDRESSES));
    // Since Linux 6.2, an interface can be renamed while it is up.
    let name = &renamed.interface;
    stage.network.host.ip_batch(&format!("link set {name} down")).or_fail("down");
    let pid = stage.agent().pid().or_fail("the agent's process");
    let before = resident_bytes(pid);
    let begin = Instant::now();
    let slowest = thread::scope(|scope| {
        let renaming = format!("link set {name} name aside\nlink set aside name {name}\n");
        let (inside, host) = (&hostile.namespace, &stage.network.host);
        let flapping = [
            scope
                .spawn(|| inside.ip_batch(&"link set eth0 down\nlink set eth0 up\n".repeat(FLAPS))),
            scope.spawn(move || host.ip_batch(&renaming.repeat(FLAPS))),
        ];
        let slowest = slowest_change(&other, || flapping.iter().all(|it| it.is_finished()));
        for flaps in flapping {
            let changed = flaps.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            changed.or_fail("changing links");
        }
        slowest
    });
    report_duration(&format!("{} changes of links", 4 * FLAPS), begin);
    eprintln!("took | the slowest change of a policy meanwhile | {slowest:.1?}");
    assert!(slowest < CHANGE_LIMIT, "{slowest:?}");
    let grown = resident_bytes(pid).saturating_sub(before);
    eprintln!("took | memory for it | {} KiB", grown / 1024);
    assert!(grown < MEMORY_GROWTH, "{grown} bytes");
    assert_enforced_again(&renamed, &hostile);
}

/// Changes a policy until `done`. Returns the longest time that a change took.
fn slowest_change(sandbox: &TestSandbox, done: impl Fn() -> bool) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 0.. {
        let extra = format!("203.0.114.{}", number % 250);
        let allowed = [ALLOWED_ADDRESSES[0], MARKER_ADDRESS, &extra];
        let begin = Instant::now();
        sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allowed }));
        slowest = slowest.max(begin.elapsed());
        if done() {
            break;
        }
    }
    slowest
}

/// The policies are in force, also on an interface that is made again right after the changes.
fn assert_enforced_again(renamed: &TestSandbox, hostile: &TestSandbox) {
    let host = &renamed.testbed.network.host;
    host.ip_batch(&format!("link set {} up", renamed.interface)).or_fail("up");
    host.ip_batch(&format!("link del {}", hostile.interface)).or_fail("deleting it");
    let begin = Instant::now();
    hostile.create_veth(host).or_fail("making it again");
    hostile.route_through(host).or_fail("routing again");
    for sandbox in [hostile, renamed] {
        let enforced = || (sandbox.status()["status"] == "enforcing").then_some(());
        eventually("it is enforced", enforced).or_fail("enforcing again");
    }
    report_duration("an interface made again after them: until it is enforced", begin);
    hostile.assert_reaches("8.8.8.8");
    hostile.assert_refused("8.8.8.9");
}

fn resident_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).or_fail("its memory");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).or_fail("its memory");
    line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).or_fail("KiB") << 10
}
