//! The same with filters of clsact, which somebody removes, or puts others in front of.

use std::{sync::Arc, time::Instant};

use policy_tests::{
    patience::eventually,
    probe::Seen,
    server,
    stage::{Guest, OPENED, OrFail as _, Stage},
    world::command,
};
use serde_json::Value;

use super::{NOT_JUDGED, is_said, is_said_times, is_shut_again};

fn with_sandbox() -> (Arc<Stage>, Guest) {
    let stage = Stage::with("[dataplane]\nattach = \"clsact\"");
    let sandbox = stage.sandbox();
    sandbox.may_only_reach(&OPENED);
    (stage, sandbox)
}

/// What `tc <words> dev <the sandbox's interface> <more>` prints.
#[track_caller]
fn tc(sandbox: &Guest, words: &[&str], more: &[&str]) -> String {
    let mut tc = sandbox.stage.world.host.command("tc").or_fail("entering the host");
    command::run(tc.args(words).args(["dev", &sandbox.interface]).args(more)).or_fail("tc")
}

/// The numbers of the programs at both hooks, in the order in which they run.
#[track_caller]
fn programs(sandbox: &Guest) -> Vec<Vec<u64>> {
    let at = |hook| {
        let filters: Value =
            serde_json::from_str(&tc(sandbox, &["-json", "filter", "show"], &[hook]))
                .or_fail("JSON");
        let options = filters.as_array().into_iter().flatten().map(|filter| &filter["options"]);
        options.filter_map(|options| options["prog"]["id"].as_u64()).collect()
    };
    vec![at("ingress"), at("egress")]
}

#[test]
fn those_removed_by_hand_are_added_again_and_it_is_said() {
    let (stage, sandbox) = with_sandbox();
    for (round, (what, which)) in [("filter", "ingress"), ("qdisc", "clsact")].iter().enumerate() {
        let begin = Instant::now();
        tc(&sandbox, &[what, "del"], &[which]);
        is_said_times(&stage, NOT_JUDGED, round + 1);
        is_shut_again(&sandbox, "filters of clsact removed by hand", begin);
    }
}

#[test]
fn one_in_front_of_ours_is_behind_it_after_the_next_look() {
    let (stage, sandbox) = with_sandbox();
    let begin = Instant::now();
    // One instruction: everything matches, and passes.
    let first = ["ingress", "pref", "1", "protocol", "all"];
    let everything = ["bpf", "bytecode", "1,6 0 0 1,", "flowid", "1:1"];
    tc(&sandbox, &["filter", "add"], &[first, everything].concat());
    let open = || (sandbox.tcp("8.8.8.9", server::ECHO) == Seen::Answered).then_some(());
    eventually("it takes the packets away from ours", open).or_fail("adding it");
    is_shut_again(&sandbox, "another filter of clsact in front of ours", begin);
    is_said(&stage, NOT_JUDGED);
    // Ours has another handle now.
    sandbox.may_only_reach(&OPENED);
    let [ingress, egress] = &programs(&sandbox)[..] else { unreachable!("both hooks") };
    assert_eq!((ingress.len(), egress.len()), (1, 1), "of programs; the other has none");
}

#[test]
fn those_in_place_stay_when_the_agent_starts_again_and_go_with_their_sandbox() {
    let (stage, sandbox) = with_sandbox();
    let before = programs(&sandbox);
    let tally = sandbox.tally();
    stage.kill();
    stage.restart();
    tally.is_clean("the agent killed and started again, with clsact");
    assert_eq!(programs(&sandbox), before);
    sandbox.is_refused("8.8.8.9");
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let deleted = stage.request("DELETE", &path, &Value::Null);
    assert_eq!(deleted.code, 204, "{}", deleted.body);
    assert_eq!(programs(&sandbox), [[0; 0], [0; 0]]);
}
