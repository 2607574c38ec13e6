//! The gates of an agent with another ABI stay in force until this agent's gates are attached in
//! front.
//!
//! The previous agent is this version with its pins moved to the path of another version. So its
//! gates and maps are as unknown to the next agent as those of another version.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use policy_common::ABI_VERSION;
use policy_testbed::{
    probe,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
};

fn pins_of_version(bpffs: &Path, number: u32) -> PathBuf {
    bpffs.join(format!("v{number}"))
}

/// Stops the agent, makes its pins look like another version's, and starts it again.
#[track_caller]
fn upgrade_agent(stage: &Testbed) {
    stage.stop_agent();
    let bpffs = stage.agent().bpffs().path().to_owned();
    let (mine, other) =
        (pins_of_version(&bpffs, ABI_VERSION), pins_of_version(&bpffs, ABI_VERSION - 1));
    fs::rename(&mine, &other).or_fail("making it look like another version's");
    let begin = Instant::now();
    stage.restart_agent();
    eprintln!("took | upgrade to another ABI: start | {:.1?}", begin.elapsed());
}

#[test]
fn old_gates_stay_until_new_ones_are_in_front() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let mut stream = sandbox.connect_echo(ALLOWED_ADDRESSES[0]);
    let tally = sandbox.start_counted_flood();
    for _ in 0..3 {
        upgrade_agent(&stage);
        probe::echo(&mut stream, b"still here").or_fail("an open connection");
        assert_eq!(sandbox.status()["status"], "enforcing");
        let bpffs = stage.agent().bpffs().path().to_owned();
        assert!(
            !pins_of_version(&bpffs, ABI_VERSION - 1).exists(),
            "the other version's pins are gone"
        );
    }
    tally.assert_no_leak_or_loss("upgrade to another ABI");
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
}

#[test]
fn a_sandbox_without_its_state_file_keeps_old_gates() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let other = stage.add_sandbox();
    other.allow_only(&["8.8.8.9"]);
    let tally = sandbox.start_counted_flood();
    let file = stage.agent().state_dir().join(format!("sandboxes/{}.json", sandbox.id));
    fs::write(file, "{").or_fail("breaking a state file");
    upgrade_agent(&stage);
    other.assert_reaches("8.8.8.9");
    other.assert_refused("8.8.8.8");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    tally.assert_no_leak_or_loss("upgrade to another ABI with a broken state file");
    let bpffs = stage.agent().bpffs().path().to_owned();
    assert!(
        !pins_of_version(&bpffs, ABI_VERSION - 1).exists(),
        "the other version's pins are gone"
    );
}
