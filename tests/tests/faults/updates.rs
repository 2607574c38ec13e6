//! Changes without a pause, by several clients at a time.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use policy_tests::stage::{Guest, MARKER_TO, OPENED, OrFail as _, Stage};
use serde_json::json;

use super::{can_be_changed, restart, took};

/// How long.
const LONG: Duration = Duration::from_secs(15);
/// Sandboxes that change, and clients that change each of them.
const SANDBOXES: usize = 8;
const CLIENTS: usize = 2;
/// Changes that have to be done in this time on a machine that does other things, too.
const AT_LEAST: usize = 200;
/// Descriptors by which the agent may have grown: those of a connection or two.
const FEW: usize = 8;

#[test]
fn changes_without_a_pause_leak_nothing_lose_nothing_and_leave_nothing_behind() {
    let (stage, sandbox) = Stage::with_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let others: Vec<_> = (1..SANDBOXES).map(|_| stage.sandbox()).collect();
    let changing: Vec<_> = std::iter::once(&sandbox).chain(&others).collect();
    changing.iter().for_each(|sandbox| change(sandbox, 0));
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).or_fail("descriptors").count();
    let before = descriptors();
    let tally = sandbox.tally();
    let begin = Instant::now();
    let changes: usize = thread::scope(|scope| {
        let work = |client: usize| {
            let sandbox = changing[client / CLIENTS];
            move || {
                let mut done = 0;
                while begin.elapsed() < LONG {
                    change(sandbox, client * 100 + done % 100);
                    done += 1;
                }
                done
            }
        };
        let clients: Vec<_> =
            (0..SANDBOXES * CLIENTS).map(|client| scope.spawn(work(client))).collect();
        clients.into_iter().map(join).sum()
    });
    took(&format!("{changes} changes"), begin);
    assert!(changes >= AT_LEAST, "{changes} changes only");
    tally.is_clean("changes without a pause");
    let after = descriptors();
    assert!(after <= before + FEW, "{before} descriptors before, {after} after");
    can_be_changed(&sandbox);
    restart(&sandbox);
    sandbox.reaches("8.8.8.9");
    sandbox.is_refused("8.8.8.8");
}

fn join<T>(client: thread::ScopedJoinHandle<'_, T>) -> T {
    client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// One of many policies, all of which allow what is [`OPENED`].
fn change(sandbox: &Guest, number: usize) {
    let other = format!("203.0.{}.{}", 114 + number / 100, number % 100);
    let allowed = [OPENED[0], MARKER_TO, &other];
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allowed });
    sandbox.network(network);
}
