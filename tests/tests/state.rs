//! What the agent keeps on disk and on bpffs: broken, full, and cleaned up.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy_tests::{
    patience::eventually,
    probe::Seen,
    server,
    stage::{OPENED, OrFail as _, Stage},
};
use serde_json::json;

#[test]
fn a_broken_state_file_is_set_aside_and_enforcement_stays() {
    let (stage, sandbox) = Stage::with_sandbox();
    let other = stage.sandbox();
    other.may_only_reach(&["8.8.8.9"]);
    stage.kill();
    let state = stage.agent().state_dir().join("sandboxes").join(format!("{}.json", sandbox.id));
    fs::write(&state, "{\"version\":1,\"slot").or_fail("breaking a state file");
    stage.restart();
    sandbox.is_refused("8.8.8.9");
    other.reaches("8.8.8.9");
    other.is_refused("8.8.8.8");
    assert!(stage.agent().log().contains("broken"), "{}", stage.agent().log());
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.reaches("8.8.8.9");
    sandbox.is_refused("8.8.8.8");
}

#[test]
fn a_full_disk_refuses_the_change_and_keeps_the_policy() {
    let stage = Stage::without_agent("");
    let state = stage.agent().state_dir();
    let full = Tmpfs::mount(&state);
    stage.restart();
    let sandbox = stage.sandbox();
    sandbox.may_only_reach(&OPENED);
    full.fill();
    let spec = sandbox.spec(&json!({ "network": { "denyOut": ["8.8.8.8"] } }));
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let answer = stage.request("PUT", &path, &spec);
    assert_eq!(answer.code, 500, "{}", answer.body);
    assert!(answer.body.contains("disk"), "{}", answer.body);
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
}

#[test]
fn cleanup_detaches_everything_and_leaves_nothing() {
    let (stage, sandbox) = Stage::with_sandbox();
    let config = stage.agent().config();
    let cleanup = ["cleanup", "--config", &config.to_string_lossy()];
    let refused = stage.cli(&cleanup);
    assert_eq!(refused.code, 1, "while an agent runs: {refused:?}");
    stage.stop();
    let (pins, state) = (stage.agent().bpffs().directory().to_owned(), stage.agent().state_dir());
    let mut command = stage.agent().command().or_fail("policy-agent");
    // Where the agent ran: filters of clsact are found by the names of their interfaces.
    let inside = stage.world.host.enter().or_fail("entering the host");
    let output = command.args(cleanup).output().or_fail("cleaning up");
    drop(inside);
    assert!(output.status.success(), "{output:?}");
    // The kernel lets go of links a moment after their pins.
    eventually("the sandbox is open", || {
        (sandbox.tcp("8.8.8.9", server::ECHO) == Seen::Answered).then_some(())
    })
    .or_fail("cleaning up");
    assert!(!pins.exists(), "{} is still there", pins.display());
    assert!(!state.join("sandboxes").exists(), "{} is still there", state.display());
    stage.restart();
    sandbox.may_only_reach(&OPENED);
    assert_eq!(sandbox.tcp("8.8.8.9", server::ECHO), Seen::Refused);
}

/// A small file system.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).or_fail("making the state directory");
        let (kind, size) = (Some("tmpfs"), Some("size=256k"));
        mount(kind, at, kind, MsFlags::empty(), size).or_fail("mounting a small file system");
        Self(at.to_owned())
    }

    fn fill(&self) {
        let _ = fs::write(self.0.join("ballast"), vec![0; 1 << 20]);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
