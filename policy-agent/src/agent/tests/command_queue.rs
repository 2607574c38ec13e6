//! Commands that are executed in one batch.

use super::{AgentError, Reconciler, SandboxSpec, TestMachine, network_update, sandbox_spec};
use crate::agent::{
    command::{AgentCommand, CommandReply, CommandResult},
    queue::CommandQueue,
};

fn network_command(id: &str, denied: &str) -> AgentCommand {
    let json = format!(r#"{{"denyOut":["{denied}"]}}"#);
    AgentCommand::UpdateNetwork(id.to_owned(), Box::new(network_update(&json)))
}

/// Returns a reconciler with sandboxes `a` and `b`.
fn with_two_sandboxes(machine: &TestMachine) -> Reconciler {
    let mut reconciler = machine.start_reconciler();
    let specs = vec![
        sandbox_spec("a", "tap0", "10.11.0.2", "1.1.1.1"),
        sandbox_spec("b", "tap1", "10.11.0.3", "2.2.2.2"),
    ];
    reconciler.apply(specs).expect("applied");
    machine.dataplane.state().calls.clear();
    reconciler
}

fn denied_entries(reconciler: &Reconciler, id: &str) -> Vec<String> {
    let sandbox = reconciler.registry.find(id).expect("known");
    sandbox.active_policy.network.deny_out.clone().unwrap_or_default()
}

fn all_applied(reply: &CommandResult) -> bool {
    reply.as_ref().is_ok_and(CommandReply::is_enforced)
}

#[test]
fn commands_for_different_sandboxes_are_published_together() {
    let machine = TestMachine::new();
    let mut reconciler = with_two_sandboxes(&machine);
    let replies = reconciler
        .execute_batch(vec![network_command("a", "3.3.3.3"), network_command("b", "3.3.3.3")]);
    assert!(replies.iter().all(all_applied));
    assert_eq!(machine.dataplane.state().calls, ["publish"], "once, since they are equal");
    assert_eq!(
        [denied_entries(&reconciler, "a"), denied_entries(&reconciler, "b")],
        [["3.3.3.3"], ["3.3.3.3"]]
    );
}

#[test]
fn commands_for_one_sandbox_run_in_their_order() {
    let machine = TestMachine::new();
    let mut reconciler = with_two_sandboxes(&machine);
    let more = AgentCommand::UpdateNetwork(
        "a".to_owned(),
        Box::new(network_update(r#"{"denyOut":["4.4.4.4"],"allowOut":["5.5.5.5"]}"#)),
    );
    let replies = reconciler.execute_batch(vec![
        network_command("a", "3.3.3.3"),
        more,
        network_command("a", "6.6.6.6"),
    ]);
    assert!(replies.iter().all(all_applied));
    assert_eq!(denied_entries(&reconciler, "a"), ["6.6.6.6"]);
    let known = reconciler.registry.find("a").expect("known");
    assert_eq!(known.active_policy.network.allow_out, None, "an update replaces all egress fields");
    assert_eq!(machine.persisted_specs().len(), 2);
}

#[test]
fn a_rejected_command_does_not_affect_others() {
    let machine = TestMachine::new();
    let mut reconciler = with_two_sandboxes(&machine);
    let requests = vec![
        network_command("a", "3.3.3.3"),
        network_command("nobody", "3.3.3.3"),
        network_command("b", "not an address"),
        AgentCommand::Apply {
            specs: vec![sandbox_spec("c", "tap9", "10.11.0.4", "1.1.1.1")],
            force: false,
        },
        network_command("b", "4.4.4.4"),
    ];
    let replies = reconciler.execute_batch(requests);
    assert_eq!(
        replies.iter().map(all_applied).collect::<Vec<_>>(),
        [true, false, false, false, true]
    );
    assert!(matches!(replies[1], Err(AgentError::UnknownSandbox(_))));
    assert_eq!(
        [denied_entries(&reconciler, "a"), denied_entries(&reconciler, "b")],
        [["3.3.3.3"], ["4.4.4.4"]]
    );
}

#[test]
fn an_interface_goes_to_the_first_command() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let on_tap0 = |id: &str| AgentCommand::Apply {
        specs: vec![sandbox_spec(id, "tap0", "10.11.0.2", "1.1.1.1")],
        force: false,
    };
    let replies = reconciler.execute_batch(vec![on_tap0("a"), on_tap0("b")]);
    assert_eq!(replies.iter().map(all_applied).collect::<Vec<_>>(), [true, false]);
    assert!(matches!(replies[1], Err(AgentError::Invalid { .. })));
}

#[test]
fn commands_of_callers_that_left_are_not_executed() {
    let machine = TestMachine::new();
    let mut reconciler = with_two_sandboxes(&machine);
    let queue = CommandQueue::default();
    drop(queue.push(network_command("a", "3.3.3.3")));
    let mut reply = queue.push(network_command("b", "4.4.4.4"));
    queue.run_batch(&mut reconciler);
    assert!(all_applied(&reply.try_recv().expect("an answer")));
    assert_eq!(
        [denied_entries(&reconciler, "a"), denied_entries(&reconciler, "b")],
        [["1.1.1.1"], ["4.4.4.4"]]
    );
    queue.run_batch(&mut reconciler);
    assert_eq!(denied_entries(&reconciler, "a"), ["1.1.1.1"]);
}

#[test]
fn every_command_of_a_long_queue_is_answered() {
    let machine = TestMachine::new();
    let mut reconciler = with_two_sandboxes(&machine);
    let queue = CommandQueue::default();
    let change = |number: u32| {
        network_command(if number.is_multiple_of(2) { "a" } else { "b" }, &numbered_address(number))
    };
    let mut replies: Vec<_> = (0..200).map(|number| queue.push(change(number))).collect();
    // Each caller runs a batch, even if no command is left.
    for _ in 0..200 {
        queue.run_batch(&mut reconciler);
    }
    assert!(replies.iter_mut().all(|answer| all_applied(&answer.try_recv().expect("an answer"))));
    assert_eq!(
        [denied_entries(&reconciler, "a"), denied_entries(&reconciler, "b")],
        [[numbered_address(198)], [numbered_address(199)]]
    );
}

#[test]
fn commands_between_changes_of_policies_do_not_split_their_batch() {
    let machine = TestMachine::new();
    let mut reconciler = with_two_sandboxes(&machine);
    let queue = CommandQueue::default();
    let mut first = queue.push(network_command("a", "3.3.3.3"));
    let mut delete = queue.push(AgentCommand::Delete("a".to_owned()));
    let mut second = queue.push(network_command("b", "3.3.3.3"));
    queue.run_batch(&mut reconciler);
    assert!([&mut first, &mut second].map(|reply| reply.try_recv().is_ok()) == [true, true]);
    assert_eq!(machine.dataplane.state().calls, ["publish"]);
    assert!(delete.try_recv().is_err(), "it has a turn of its own");
    queue.run_batch(&mut reconciler);
    delete.try_recv().expect("an answer").expect("deleted");
    assert!(reconciler.registry.find("a").is_none());
}

fn numbered_address(number: u32) -> String {
    format!("9.9.9.{number}")
}

#[test]
fn a_list_is_one_command() {
    let machine = TestMachine::new();
    let mut reconciler = with_two_sandboxes(&machine);
    let both: Vec<SandboxSpec> = vec![
        sandbox_spec("a", "tap0", "10.11.0.2", "3.3.3.3"),
        sandbox_spec("b", "tap1", "10.11.0.3", "not an address"),
    ];
    let replies = reconciler.execute_batch(vec![
        AgentCommand::Apply { specs: both, force: false },
        network_command("b", "4.4.4.4"),
    ]);
    assert_eq!(replies.iter().map(all_applied).collect::<Vec<_>>(), [false, true]);
    assert_eq!(
        [denied_entries(&reconciler, "a"), denied_entries(&reconciler, "b")],
        [["1.1.1.1"], ["4.4.4.4"]]
    );
}
