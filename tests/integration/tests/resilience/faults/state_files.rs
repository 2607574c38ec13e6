//! Corrupt state files are moved aside, and their sandboxes stay enforced.

use std::{fs, path::Path, time::Instant};

use policy_testbed::{
    probe::ProbeResult,
    test_servers,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

use super::{assert_policy_can_change, report_duration, state_file_of};

type CorruptFile = fn(&Path);

/// The kinds of corruption of a file.
const CORRUPTIONS: [(&str, CorruptFile); 9] = [
    ("empty", |path| write_bytes(path, b"")),
    ("cut off in the middle", |path| truncate_file(path, |length| length / 2)),
    ("cut off at its end", |path| truncate_file(path, |length| length - 1)),
    ("bytes that are no text", |path| write_bytes(path, &[0xff_u8, 0x00, 0xfe, 0x80].repeat(100))),
    ("JSON of something else", |path| {
        write_bytes(path, br#"{"name":"left-pad","version":"1.3.0"}"#)
    }),
    ("of a version to come", |path| edit_json(path, |state| state["version"] = json!(99))),
    ("without a version", |path| edit_json(path, |state| state["version"] = Value::Null)),
    ("of another sandbox", |path| {
        edit_json(path, |state| state["sandbox"]["sandboxID"] = json!("somebodyelse"));
    }),
    ("a directory", |path| {
        fs::remove_file(path).or_fail("removing a state file");
        fs::create_dir(path).or_fail("putting a directory in its place");
    }),
];

#[test]
fn a_file_that_cannot_be_read_is_set_aside_and_nothing_opens() {
    let (stage, victim) = Testbed::with_sandbox();
    let other = stage.add_sandbox();
    for (what, break_it) in CORRUPTIONS {
        other.allow_only(&ALLOWED_ADDRESSES);
        let tally = victim.start_counted_flood();
        stage.kill_agent();
        break_it(&state_file_of(&victim));
        let begin = Instant::now();
        stage.restart_agent();
        report_duration(&format!("state file {what}: start"), begin);
        other.assert_reaches("8.8.8.8");
        other.assert_refused("8.8.8.9");
        assert_policy_can_change(&other);
        tally.assert_no_leak_or_loss(&format!("state file {what}"));
        assert!(
            state_file_of(&victim).with_extension("broken").exists(),
            "{what}: it is set aside"
        );
        let log = stage.agent().log_tail();
        assert!(log.contains(&format!("{}.broken", victim.id)), "{what}: {log}");
        assert_restored(&victim);
        let aside = state_file_of(&victim).with_extension("broken");
        let _ = fs::remove_file(&aside).or_else(|_| fs::remove_dir(&aside));
    }
}

/// After the sandbox is applied again, it is a normal sandbox.
#[track_caller]
fn assert_restored(victim: &TestSandbox) {
    assert_policy_can_change(victim);
    victim.allow_only(&ALLOWED_ADDRESSES);
}

/// The kernel's state stays in force until a client changes it.
#[test]
fn a_sandbox_whose_file_is_gone_stays_and_can_be_deleted() {
    let (stage, sandbox) = Testbed::with_sandbox();
    stage.kill_agent();
    fs::remove_file(state_file_of(&sandbox)).or_fail("removing the file");
    stage.restart_agent();
    sandbox.assert_refused("8.8.8.9");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.delete();
    let seen = || sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT);
    let open = || (seen() == ProbeResult::Answered).then_some(());
    eventually("the interface is the host's again", open).or_fail("deleting it");
}

fn write_bytes(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).or_fail("breaking a state file");
}

fn truncate_file(path: &Path, length: fn(usize) -> usize) {
    let text = fs::read(path).or_fail("reading a state file");
    write_bytes(path, &text[..length(text.len())]);
}

fn edit_json(path: &Path, change: fn(&mut Value)) {
    let text = fs::read(path).or_fail("reading a state file");
    let mut state: Value = serde_json::from_slice(&text).or_fail("a state file is JSON");
    change(&mut state);
    write_bytes(path, state.to_string().as_bytes());
}
