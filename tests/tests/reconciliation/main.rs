//! Interfaces, addresses, pins and other people's programs that change under the agent's hands: what is
//! enforced follows what was asked for, and what could not be is said.

mod addresses;
mod filters;
mod foreign;
mod interfaces;
mod others;
mod pins;

use std::{sync::Arc, time::Instant};

use policy_tests::{
    patience::eventually,
    probe::Seen,
    server,
    stage::{Guest, OrFail as _, Stage},
};

/// What the agent says of gates that somebody took off, once they are on again.
const NOT_JUDGED: &str = "what it sent meanwhile was not judged";

/// Waits until a sandbox has this status.
#[track_caller]
fn becomes(sandbox: &Guest, status: &str) {
    let seen = || (sandbox.status()["status"] == status).then_some(());
    let became = eventually(&format!("{} is {status}", sandbox.id), seen);
    became.or_fail(&sandbox.status().to_string());
}

/// Waits until the sandbox is refused what it may not reach, and shows how long that took from `begin` on.
#[track_caller]
fn is_shut_again(sandbox: &Guest, fault: &str, begin: Instant) {
    let shut = || (sandbox.tcp("8.8.8.9", server::ECHO) == Seen::Refused).then_some(());
    eventually("it is shut again", shut).or_fail(fault);
    eprintln!("took | {fault}: until it is enforced again | {:.1?}", begin.elapsed());
    becomes(sandbox, "enforcing");
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
}

/// Waits until the agent's log says this.
#[track_caller]
fn is_said(stage: &Arc<Stage>, what: &str) {
    is_said_times(stage, what, 1);
}

/// Waits until the agent's log has said this so many times.
#[track_caller]
fn is_said_times(stage: &Arc<Stage>, what: &str, times: usize) {
    let log = || stage.agent().log();
    let said = eventually(what, || (log().matches(what).count() >= times).then_some(()));
    said.or_fail(&log());
}
