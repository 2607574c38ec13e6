//! Continuous updates by several clients at the same time.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use policy_testbed::testbed::{
    ALLOWED_ADDRESSES, MARKER_ADDRESS, OrFail as _, TestSandbox, Testbed,
};
use serde_json::json;

use super::{assert_policy_can_change, kill_and_restart, report_duration};

/// The duration of the test.
const RUN_TIME: Duration = Duration::from_secs(15);
/// The numbers of sandboxes, and of clients per sandbox.
const SANDBOXES: usize = 8;
const CLIENTS_PER_SANDBOX: usize = 2;
/// The minimum number of updates in this time on a machine that runs other tests.
const MIN_CHANGES: usize = 200;
/// The permitted growth in descriptors, for one or two connections.
const DESCRIPTOR_GROWTH: usize = 8;

#[test]
fn changes_without_a_pause_leak_nothing_lose_nothing_and_leave_nothing_behind() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let others: Vec<_> = (1..SANDBOXES).map(|_| stage.add_sandbox()).collect();
    let changing: Vec<_> = std::iter::once(&sandbox).chain(&others).collect();
    changing.iter().for_each(|sandbox| change_policy(sandbox, 0));
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).or_fail("descriptors").count();
    let before = descriptors();
    let tally = sandbox.start_counted_flood();
    let begin = Instant::now();
    let changes: usize = thread::scope(|scope| {
        let work = |client: usize| {
            let sandbox = changing[client / CLIENTS_PER_SANDBOX];
            move || {
                let mut done = 0;
                while begin.elapsed() < RUN_TIME {
                    change_policy(sandbox, client * 100 + done % 100);
                    done += 1;
                }
                done
            }
        };
        let clients: Vec<_> =
            (0..SANDBOXES * CLIENTS_PER_SANDBOX).map(|client| scope.spawn(work(client))).collect();
        clients.into_iter().map(join_client).sum()
    });
    report_duration(&format!("{changes} changes"), begin);
    assert!(changes >= MIN_CHANGES, "{changes} changes only");
    tally.assert_no_leak_or_loss("changes without a pause");
    let after = descriptors();
    assert!(after <= before + DESCRIPTOR_GROWTH, "{before} descriptors before, {after} after");
    assert_policy_can_change(&sandbox);
    kill_and_restart(&sandbox);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
}

fn join_client<T>(client: thread::ScopedJoinHandle<'_, T>) -> T {
    client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Applies one of many policies, all of which allow [`ALLOWED_ADDRESSES`].
fn change_policy(sandbox: &TestSandbox, number: usize) {
    let other = format!("203.0.{}.{}", 114 + number / 100, number % 100);
    let allowed = [ALLOWED_ADDRESSES[0], MARKER_ADDRESS, &other];
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allowed });
    sandbox.apply_network(network);
}
