//! Adoption of many sandboxes at once: `POLICY_TEST_SANDBOXES` sets the number. The default is
//! small enough for every test run.

use std::time::Instant;

use policy_testbed::{
    network::sandbox::format_mac,
    testbed::{OrFail as _, Testbed},
};
use serde_json::{Value, json};

/// The default number. Each veth pair serves two sandboxes.
const DEFAULT_SANDBOXES: usize = 148;

#[test]
fn many_sandboxes_are_applied_and_adopted_within_seconds() {
    let number = std::env::var("POLICY_TEST_SANDBOXES").ok();
    let number: usize =
        number.map_or(DEFAULT_SANDBOXES, |number| number.parse().or_fail("a number"));
    let (stage, sandbox) = Testbed::with_sandbox();
    let mut links = String::new();
    for i in 0..number.div_ceil(2) {
        links += &format!("link add many{i}a type veth peer name many{i}b\n");
    }
    stage.network.host.ip_batch(&links).or_fail("making interfaces");
    let specs: Vec<Value> = (0..number).map(numbered_spec).collect();
    let begin = Instant::now();
    let applied = stage.cli_with_stdin(&["apply", "-f", "-"], &json!(specs).to_string());
    assert_eq!(applied.exit_code, 0, "{applied:?}");
    eprintln!("took | apply of {number} sandboxes | {:.1?}", begin.elapsed());
    let tally = sandbox.start_counted_flood();
    stage.kill_agent();
    let begin = Instant::now();
    stage.restart_agent();
    eprintln!("took | kill -9 with {number} sandboxes: start | {:.1?}", begin.elapsed());
    tally.assert_no_leak_or_loss(&format!("kill -9 and start with {number} sandboxes"));
    let all = stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
    let all = all.as_array().cloned().or_fail("a list");
    assert_eq!(all.len(), number + 1);
    assert!(all.iter().all(|it| it["status"] == "enforcing"), "{all:?}");
    let ids: Vec<String> = (0..number).map(|i| format!("many{i}")).collect();
    let begin = Instant::now();
    let mut arguments = vec!["delete"];
    arguments.extend(ids.iter().map(String::as_str));
    let deleted = stage.cli(&arguments);
    assert_eq!(deleted.exit_code, 0, "{deleted:?}");
    eprintln!("took | delete of {number} sandboxes | {:.1?}", begin.elapsed());
}

fn numbered_spec(i: usize) -> Value {
    let side = if i.is_multiple_of(2) { "a" } else { "b" };
    let [high, low] = u16::try_from(i).or_fail("no more than the slots").to_be_bytes();
    json!({
        "sandboxID": format!("many{i}"),
        "interface": format!("many{}{side}", i / 2),
        "addresses": [format!("10.12.{high}.{low}"), format!("fd00:12::{i:x}")],
        "mac": format_mac([2, 0xfc, 1, 0, high, low]),
        "network": { "denyOut": ["0.0.0.0/0"], "allowOut": [format!("203.0.113.{}", low % 10)] },
    })
}
