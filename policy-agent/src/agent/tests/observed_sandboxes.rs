//! Observed sandboxes: the mode outlives what does not concern it, and ends by itself.

use super::*;
use crate::policy::{FlowDestination, PolicyMode, evaluate_connection};

const DENIED: &str = "1.1.1.1";

fn set_mode(reconciler: &mut Reconciler, mode: PolicyMode, until: Option<Timestamp>) {
    let command = AgentCommand::SetMode { id: "web".to_owned(), mode, until };
    let results = reconciler.execute_batch(vec![command]).remove(0).expect("done");
    single_result(results.into_results().expect("results")).expect("set");
}

fn observed_machine() -> (TestMachine, Reconciler) {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    reconciler.apply(vec![web_spec("tap0", "10.11.0.2", DENIED)]).expect("applied");
    set_mode(&mut reconciler, PolicyMode::Observe, None);
    (machine, reconciler)
}

/// Whether the policy in force lets the denied address pass, as the kernel is told.
#[track_caller]
fn passes(machine: &TestMachine, reconciler: &Reconciler) -> bool {
    let sandbox = reconciler.registry.find("web").expect("known");
    let destination = FlowDestination {
        address: DENIED.parse().expect("an address"),
        protocol: 17,
        port: Some(53),
        host: None,
    };
    let active = &sandbox.active_policy;
    let verdict = evaluate_connection(&active.policy, &active.floor, &destination);
    assert_eq!(verdict.allowed, verdict.would_deny);
    let state = machine.dataplane.state();
    assert_eq!(state.published[&sandbox.slot].digest, active.digest);
    assert_eq!(state.observed.contains(&sandbox.slot), verdict.allowed, "flows are reported");
    verdict.allowed
}

#[test]
fn an_observed_sandbox_passes_what_its_policy_denies() {
    let (machine, mut reconciler) = observed_machine();
    assert!(passes(&machine, &reconciler));
    set_mode(&mut reconciler, PolicyMode::Enforce, None);
    assert!(!passes(&machine, &reconciler));
}

#[test]
fn updates_of_the_network_reloads_and_restarts_keep_the_mode() {
    let (machine, mut reconciler) = observed_machine();
    let update = NetworkConfig { deny_out: Some(vec![DENIED.to_owned()]), ..Default::default() };
    reconciler.update_network("web", &update).expect("updated");
    assert!(passes(&machine, &reconciler));
    let floor = Floor::default().with_deny_add(&["203.0.113.0/24".to_owned()]).expect("a floor");
    let reloaded = PlatformPolicy { floor, defaults: PolicyDefaults::default() };
    reconciler.replace_platform_policy(reloaded).expect("reloaded");
    assert!(passes(&machine, &reconciler));
    assert!(passes(&machine, &machine.start_reconciler()));
}

#[test]
fn the_next_file_without_the_mode_enforces() {
    let (machine, mut reconciler) = observed_machine();
    reconciler.apply(vec![web_spec("tap0", "10.11.0.2", DENIED)]).expect("applied");
    assert!(!passes(&machine, &reconciler));
}

#[test]
fn an_observation_ends_at_its_time_also_if_the_agent_was_away() {
    let (machine, mut reconciler) = observed_machine();
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    set_mode(&mut reconciler, PolicyMode::Observe, Some(later));
    reconciler.remove_expired_entries();
    assert!(passes(&machine, &reconciler), "its time is not over");
    set_mode(&mut reconciler, PolicyMode::Observe, Some(Timestamp::UNIX_EPOCH));
    let mut next = machine.start_reconciler();
    next.remove_expired_entries();
    assert!(!passes(&machine, &next));
    assert_eq!(machine.persisted_specs(), [web_spec("tap0", "10.11.0.2", DENIED)]);
}
