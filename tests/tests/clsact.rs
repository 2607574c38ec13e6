//! The same precedence with filters of a clsact qdisc, as on kernels before 6.6.

use policy_tests::{
    precedence_tests,
    stage::{OrFail as _, Shared, Stage},
};
use serde_json::json;

const CLSACT: &str = "[dataplane]\nattach = \"clsact\"";

static STAGE: Shared = Shared::with(CLSACT);

precedence_tests!(STAGE);

#[test]
fn filters_outlive_a_killed_agent_and_are_adopted() {
    let stage = Stage::with(CLSACT);
    let sandbox = stage.sandbox();
    sandbox.network(json!({ "denyOut": ["8.8.8.8"] }));
    stage.agent_mut().kill().or_fail("killing the agent");
    sandbox.is_refused("8.8.8.8");
    sandbox.reaches("8.8.8.9");
    stage.restart();
    sandbox.is_refused("8.8.8.8");
    sandbox.network(json!({ "denyOut": ["8.8.8.9"] }));
    sandbox.is_refused("8.8.8.9");
    sandbox.reaches("8.8.8.8");
}
