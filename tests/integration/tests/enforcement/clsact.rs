//! The same precedence with filters of a clsact qdisc, as on kernels before 6.6.

use crate::precedence_cases::precedence_tests;
use policy_testbed::testbed::{CLSACT_CONFIG, OrFail as _, SharedTestbed, Testbed};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_config(CLSACT_CONFIG);

precedence_tests!(TESTBED);

#[test]
fn filters_outlive_a_killed_agent_and_are_adopted() {
    let stage = Testbed::with_config(CLSACT_CONFIG);
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    stage.agent_mut().kill().or_fail("killing the agent");
    sandbox.assert_refused("8.8.8.8");
    sandbox.assert_reaches("8.8.8.9");
    stage.restart_agent();
    sandbox.assert_refused("8.8.8.8");
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.9"] }));
    sandbox.assert_refused("8.8.8.9");
    sandbox.assert_reaches("8.8.8.8");
}
