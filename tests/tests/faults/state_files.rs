//! State files that are not what this agent wrote: set aside, and their sandboxes stay as they are.

use std::{fs, path::Path, time::Instant};

use policy_tests::{
    patience::eventually,
    probe::Seen,
    server,
    stage::{Guest, OPENED, OrFail as _, Stage},
};
use serde_json::{Value, json};

use super::{can_be_changed, file_of, took};

type Break = fn(&Path);

/// What can become of a file.
const BREAKS: [(&str, Break); 9] = [
    ("empty", |path| write(path, b"")),
    ("cut off in the middle", |path| cut(path, |length| length / 2)),
    ("cut off at its end", |path| cut(path, |length| length - 1)),
    ("bytes that are no text", |path| write(path, &[0xff_u8, 0x00, 0xfe, 0x80].repeat(100))),
    ("JSON of something else", |path| write(path, br#"{"name":"left-pad","version":"1.3.0"}"#)),
    ("of a version to come", |path| edit(path, |state| state["version"] = json!(99))),
    ("without a version", |path| edit(path, |state| state["version"] = Value::Null)),
    ("of another sandbox", |path| {
        edit(path, |state| state["sandbox"]["sandboxID"] = json!("somebodyelse"));
    }),
    ("a directory", |path| {
        fs::remove_file(path).or_fail("removing a state file");
        fs::create_dir(path).or_fail("putting a directory in its place");
    }),
];

#[test]
fn a_file_that_cannot_be_read_is_set_aside_and_nothing_opens() {
    let (stage, victim) = Stage::with_sandbox();
    let other = stage.sandbox();
    for (what, break_it) in BREAKS {
        other.may_only_reach(&OPENED);
        let tally = victim.tally();
        stage.kill();
        break_it(&file_of(&victim));
        let begin = Instant::now();
        stage.restart();
        took(&format!("state file {what}: start"), begin);
        other.reaches("8.8.8.8");
        other.is_refused("8.8.8.9");
        can_be_changed(&other);
        tally.is_clean(&format!("state file {what}"));
        assert!(file_of(&victim).with_extension("broken").exists(), "{what}: it is set aside");
        let log = stage.agent().log();
        assert!(log.contains(&format!("{}.broken", victim.id)), "{what}: {log}");
        comes_back(&victim);
        let aside = file_of(&victim).with_extension("broken");
        let _ = fs::remove_file(&aside).or_else(|_| fs::remove_dir(&aside));
    }
}

/// When the sandbox is described again, it is a sandbox like any other.
#[track_caller]
fn comes_back(victim: &Guest) {
    can_be_changed(victim);
    victim.may_only_reach(&OPENED);
}

/// What the kernel holds counts, until somebody says otherwise.
#[test]
fn a_sandbox_whose_file_is_gone_stays_and_can_be_deleted() {
    let (stage, sandbox) = Stage::with_sandbox();
    stage.kill();
    fs::remove_file(file_of(&sandbox)).or_fail("removing the file");
    stage.restart();
    sandbox.is_refused("8.8.8.9");
    sandbox.reaches("8.8.8.8");
    sandbox.delete();
    let seen = || sandbox.tcp("8.8.8.9", server::ECHO);
    let open = || (seen() == Seen::Answered).then_some(());
    eventually("the interface is the host's again", open).or_fail("deleting it");
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).or_fail("breaking a state file");
}

fn cut(path: &Path, length: fn(usize) -> usize) {
    let text = fs::read(path).or_fail("reading a state file");
    write(path, &text[..length(text.len())]);
}

fn edit(path: &Path, change: fn(&mut Value)) {
    let text = fs::read(path).or_fail("reading a state file");
    let mut state: Value = serde_json::from_slice(&text).or_fail("a state file is JSON");
    change(&mut state);
    write(path, state.to_string().as_bytes());
}
