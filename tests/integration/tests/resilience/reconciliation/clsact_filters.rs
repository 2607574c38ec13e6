//! The same with clsact filters, which other programs delete or precede with their own.

use std::time::Instant;

use policy_testbed::{
    network::command,
    testbed::{ALLOWED_ADDRESSES, CLSACT_CONFIG, OrFail as _, TestSandbox, Testbed},
};
use serde_json::Value;

use super::{
    UNENFORCED_WARNING, wait_for_log, wait_for_log_times, wait_until_enforced, wait_until_guarded,
};

/// The output of `tc <words> dev <the sandbox's interface> <more>`.
#[track_caller]
fn run_tc(sandbox: &TestSandbox, words: &[&str], more: &[&str]) -> String {
    let mut tc = sandbox.testbed.network.host.command("tc").or_fail("entering the host");
    command::run(tc.args(words).args(["dev", &sandbox.interface]).args(more)).or_fail("tc")
}

/// The IDs of the programs at both hooks, in execution order.
#[track_caller]
fn program_ids(sandbox: &TestSandbox) -> Vec<Vec<u64>> {
    let at = |hook| {
        let filters: Value =
            serde_json::from_str(&run_tc(sandbox, &["-json", "filter", "show"], &[hook]))
                .or_fail("JSON");
        let options = filters.as_array().into_iter().flatten().map(|filter| &filter["options"]);
        options.filter_map(|options| options["prog"]["id"].as_u64()).collect()
    };
    vec![at("ingress"), at("egress")]
}

#[test]
fn filters_removed_by_hand_are_restored_and_reported() {
    let (stage, sandbox) = Testbed::with_config_and_sandbox(CLSACT_CONFIG);
    for (round, (what, which)) in [("filter", "ingress"), ("qdisc", "clsact")].iter().enumerate() {
        let begin = Instant::now();
        run_tc(&sandbox, &[what, "del"], &[which]);
        wait_for_log_times(&stage, UNENFORCED_WARNING, round + 1);
        wait_until_enforced(&sandbox, "filters of clsact removed by hand", begin);
    }
}

#[test]
fn a_filter_in_front_of_ours_is_moved_behind_it() {
    let (stage, sandbox) = Testbed::with_config_and_sandbox(CLSACT_CONFIG);
    let begin = Instant::now();
    // One instruction: it matches and passes everything.
    let first = ["ingress", "pref", "1", "protocol", "all"];
    let everything = ["bpf", "bytecode", "1,6 0 0 1,", "flowid", "1:1"];
    run_tc(&sandbox, &["filter", "add"], &[first, everything].concat());
    wait_until_guarded(&sandbox);
    wait_until_enforced(&sandbox, "another filter of clsact in front of ours", begin);
    wait_for_log(&stage, UNENFORCED_WARNING);
    // The agent's filter has another handle now.
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    let [ingress, egress] = &program_ids(&sandbox)[..] else { unreachable!("both hooks") };
    assert_eq!((ingress.len(), egress.len()), (1, 1), "of programs; the other has none");
}

#[test]
fn filters_stay_across_a_restart_and_go_with_their_sandbox() {
    let (stage, sandbox) = Testbed::with_config_and_sandbox(CLSACT_CONFIG);
    let before = program_ids(&sandbox);
    let tally = sandbox.start_counted_flood();
    stage.kill_agent();
    stage.restart_agent();
    tally.assert_no_leak_or_loss("the agent killed and started again, with clsact");
    assert_eq!(program_ids(&sandbox), before);
    sandbox.assert_refused("8.8.8.9");
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let deleted = stage.request("DELETE", &path, &Value::Null);
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    assert_eq!(program_ids(&sandbox), [[0; 0], [0; 0]]);
}
