//! The agent's files on disk and on bpffs: corrupt, full, and cleaned up.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy_testbed::{
    probe::ProbeResult,
    test_servers,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
    wait::eventually,
};
use serde_json::json;

#[test]
fn a_broken_state_file_is_set_aside_and_enforcement_stays() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let other = stage.add_sandbox();
    other.allow_only(&["8.8.8.9"]);
    stage.kill_agent();
    let state = stage.agent().state_dir().join("sandboxes").join(format!("{}.json", sandbox.id));
    fs::write(&state, "{\"version\":1,\"slot").or_fail("breaking a state file");
    stage.restart_agent();
    sandbox.assert_refused("8.8.8.9");
    other.assert_reaches("8.8.8.9");
    other.assert_refused("8.8.8.8");
    assert!(stage.agent().log_tail().contains("broken"), "{}", stage.agent().log_tail());
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
}

#[test]
fn a_full_disk_refuses_the_change_and_keeps_the_policy() {
    let stage = Testbed::without_agent("");
    let state = stage.agent().state_dir();
    let full = SmallTmpfs::mount(&state);
    stage.restart_agent();
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    full.fill();
    let spec = sandbox.sandbox_spec(&json!({ "network": { "denyOut": ["8.8.8.8"] } }));
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let answer = stage.request("PUT", &path, &spec);
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.contains("disk"), "{}", answer.body);
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn cleanup_detaches_everything_and_leaves_nothing() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let config = stage.agent().config_path();
    let cleanup = ["cleanup", "--config", &config.to_string_lossy()];
    let refused = stage.cli(&cleanup);
    assert_eq!(refused.exit_code, 1, "while an agent runs: {refused:?}");
    stage.stop_agent();
    let (pins, state) = (stage.agent().bpffs().path().to_owned(), stage.agent().state_dir());
    let mut command = stage.agent().cli_command().or_fail("policy-agent");
    // In the agent's namespace: clsact filters are found by the names of their interfaces.
    let inside = stage.network.host.enter().or_fail("entering the host");
    let output = command.args(cleanup).output().or_fail("cleaning up");
    drop(inside);
    assert!(output.status.success(), "{output:?}");
    // The kernel releases links shortly after their pins.
    eventually("the sandbox is open", || {
        (sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT) == ProbeResult::Answered)
            .then_some(())
    })
    .or_fail("cleaning up");
    assert!(!pins.exists(), "{} is still there", pins.display());
    assert!(!state.join("sandboxes").exists(), "{} is still there", state.display());
    stage.restart_agent();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    assert_eq!(sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT), ProbeResult::Refused);
}

/// A small file system.
struct SmallTmpfs(PathBuf);

impl SmallTmpfs {
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

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
