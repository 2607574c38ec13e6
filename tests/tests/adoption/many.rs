//! Many sandboxes, adopted at once.
//!
//! No more than 150 of them, and they go in parts: kernels up to at least 6.18 can deadlock when more
//! than a thousand BPF programs are freed at once (see `docs/kernel-support.md`).

use std::time::Instant;

use policy_tests::{
    stage::{OrFail as _, Stage},
    world::sandbox::mac_text,
};
use serde_json::{Value, json};

/// Veth pairs, each of which gives two interfaces.
const PAIRS: usize = 74;
/// Sandboxes that go together.
const PART: usize = 25;

#[test]
fn a_hundred_and_fifty_sandboxes_are_applied_and_adopted_within_seconds() {
    let (stage, sandbox) = Stage::with_sandbox();
    let mut links = String::new();
    for i in 0..PAIRS {
        links += &format!("link add many{i}a type veth peer name many{i}b\n");
    }
    stage.world.host.ip(&links).or_fail("making interfaces");
    let specs: Vec<Value> = (0..2 * PAIRS).map(spec).collect();
    let begin = Instant::now();
    let applied = stage.cli_with(&["apply", "-f", "-"], &json!(specs).to_string());
    assert_eq!(applied.code, 0, "{applied:?}");
    is_done("apply 148 sandboxes", begin, 20);
    let tally = sandbox.tally();
    stage.kill();
    let begin = Instant::now();
    stage.restart();
    is_done("adopt 149 sandboxes", begin, 10);
    tally.is_clean("adoption of 149 sandboxes");
    let all = stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
    let all = all.as_array().cloned().or_fail("a list");
    assert_eq!(all.len(), 2 * PAIRS + 1);
    assert!(all.iter().all(|it| it["status"] == "enforcing"), "{all:?}");
    let ids: Vec<String> = (0..2 * PAIRS).map(|i| format!("many{i}")).collect();
    for part in ids.chunks(PART) {
        let mut arguments = vec!["delete"];
        arguments.extend(part.iter().map(String::as_str));
        let deleted = stage.cli(&arguments);
        assert_eq!(deleted.code, 0, "{deleted:?}");
    }
}

#[track_caller]
fn is_done(what: &str, since: Instant, seconds: u64) {
    let took = since.elapsed();
    eprintln!("took | {what} | {took:.1?}");
    assert!(took.as_secs() < seconds, "{what}: {took:?}");
}

fn spec(i: usize) -> Value {
    let side = if i.is_multiple_of(2) { "a" } else { "b" };
    let low = u8::try_from(i).or_fail("a byte");
    json!({
        "sandboxID": format!("many{i}"),
        "interface": format!("many{}{side}", i / 2),
        "addresses": [format!("10.12.0.{low}"), format!("fd00:12::{low:x}")],
        "mac": mac_text([2, 0xfc, 1, 0, 0, low]),
        "network": { "denyOut": ["0.0.0.0/0"], "allowOut": [format!("203.0.113.{}", low % 10)] },
    })
}
