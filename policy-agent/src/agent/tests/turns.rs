//! Requests that share a turn.

use super::{Error, Machine, Reconciler, SandboxSpec, sandbox, update};
use crate::agent::{
    reconciler::Outcomes,
    turn::{Queue, Request},
};

fn network(id: &str, denied: &str) -> Request {
    let json = format!(r#"{{"denyOut":["{denied}"]}}"#);
    Request::Network(id.to_owned(), Box::new(update(&json)))
}

/// A machine with sandboxes `a` and `b`.
fn two(machine: &Machine) -> Reconciler {
    let mut agent = machine.agent();
    let specs = vec![
        sandbox("a", "tap0", "10.11.0.2", "1.1.1.1"),
        sandbox("b", "tap1", "10.11.0.3", "2.2.2.2"),
    ];
    agent.apply(specs).expect("applied");
    machine.kernel.memory().calls.clear();
    agent
}

fn denied(agent: &Reconciler, id: &str) -> Vec<String> {
    let sandbox = agent.table.find(id).expect("known");
    sandbox.rules.network.deny_out.clone().unwrap_or_default()
}

fn works(answer: &Result<Outcomes, Error>) -> bool {
    answer.as_ref().is_ok_and(|outcomes| outcomes.iter().all(|(_, outcome)| outcome.is_ok()))
}

#[test]
fn requests_about_different_sandboxes_are_published_together() {
    let machine = Machine::new();
    let mut agent = two(&machine);
    let answers = agent.change_all(vec![network("a", "3.3.3.3"), network("b", "3.3.3.3")]);
    assert!(answers.iter().all(works));
    assert_eq!(machine.kernel.memory().calls, ["publish"], "once, since they are equal");
    assert_eq!([denied(&agent, "a"), denied(&agent, "b")], [["3.3.3.3"], ["3.3.3.3"]]);
}

#[test]
fn requests_about_one_sandbox_are_carried_out_in_their_order() {
    let machine = Machine::new();
    let mut agent = two(&machine);
    let more = Request::Network(
        "a".to_owned(),
        Box::new(update(r#"{"denyOut":["4.4.4.4"],"allowOut":["5.5.5.5"]}"#)),
    );
    let answers = agent.change_all(vec![network("a", "3.3.3.3"), more, network("a", "6.6.6.6")]);
    assert!(answers.iter().all(works));
    assert_eq!(denied(&agent, "a"), ["6.6.6.6"]);
    let known = agent.table.find("a").expect("known");
    assert_eq!(known.rules.network.allow_out, None, "an update replaces all egress fields");
    assert_eq!(machine.on_disk().len(), 2);
}

#[test]
fn a_request_that_is_refused_spoils_no_other() {
    let machine = Machine::new();
    let mut agent = two(&machine);
    let requests = vec![
        network("a", "3.3.3.3"),
        network("nobody", "3.3.3.3"),
        network("b", "not an address"),
        Request::Apply { specs: vec![sandbox("c", "tap9", "10.11.0.4", "1.1.1.1")], force: false },
        network("b", "4.4.4.4"),
    ];
    let answers = agent.change_all(requests);
    assert_eq!(answers.iter().map(works).collect::<Vec<_>>(), [true, false, false, false, true]);
    assert!(matches!(answers[1], Err(Error::Unknown(_))));
    assert_eq!([denied(&agent, "a"), denied(&agent, "b")], [["3.3.3.3"], ["4.4.4.4"]]);
}

#[test]
fn an_interface_goes_to_who_asked_first() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let on_tap0 = |id: &str| Request::Apply {
        specs: vec![sandbox(id, "tap0", "10.11.0.2", "1.1.1.1")],
        force: false,
    };
    let answers = agent.change_all(vec![on_tap0("a"), on_tap0("b")]);
    assert_eq!(answers.iter().map(works).collect::<Vec<_>>(), [true, false]);
    assert!(matches!(answers[1], Err(Error::Invalid { .. })));
}

#[test]
fn of_who_has_gone_before_its_turn_nothing_is_done() {
    let machine = Machine::new();
    let mut agent = two(&machine);
    let queue = Queue::default();
    drop(queue.push(network("a", "3.3.3.3")));
    let mut answer = queue.push(network("b", "4.4.4.4"));
    queue.serve(&mut agent);
    assert!(works(&answer.try_recv().expect("an answer")));
    assert_eq!([denied(&agent, "a"), denied(&agent, "b")], [["1.1.1.1"], ["4.4.4.4"]]);
    queue.serve(&mut agent);
    assert_eq!(denied(&agent, "a"), ["1.1.1.1"]);
}

#[test]
fn all_that_is_asked_for_is_answered_however_much_it_is() {
    let machine = Machine::new();
    let mut agent = two(&machine);
    let queue = Queue::default();
    let change =
        |number: u32| network(if number.is_multiple_of(2) { "a" } else { "b" }, &address(number));
    let mut answers: Vec<_> = (0..200).map(|number| queue.push(change(number))).collect();
    // Every one of them takes a turn, whether something is left for it or not.
    for _ in 0..200 {
        queue.serve(&mut agent);
    }
    assert!(answers.iter_mut().all(|answer| works(&answer.try_recv().expect("an answer"))));
    assert_eq!([denied(&agent, "a"), denied(&agent, "b")], [[address(198)], [address(199)]]);
}

fn address(number: u32) -> String {
    format!("9.9.9.{number}")
}

#[test]
fn a_list_is_one_request() {
    let machine = Machine::new();
    let mut agent = two(&machine);
    let both: Vec<SandboxSpec> = vec![
        sandbox("a", "tap0", "10.11.0.2", "3.3.3.3"),
        sandbox("b", "tap1", "10.11.0.3", "not an address"),
    ];
    let answers = agent
        .change_all(vec![Request::Apply { specs: both, force: false }, network("b", "4.4.4.4")]);
    assert_eq!(answers.iter().map(works).collect::<Vec<_>>(), [false, true]);
    assert_eq!([denied(&agent, "a"), denied(&agent, "b")], [["1.1.1.1"], ["4.4.4.4"]]);
}
