//! A disk that is full or read-only.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy_testbed::{
    probe::ProbeResult,
    test_servers,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

use super::{assert_policy_can_change, kill_and_restart, report_duration};

/// A sandbox whose agent stores its state on a small disk.
fn sandbox_on_small_disk() -> (TestSandbox, SmallDisk) {
    let stage = Testbed::without_agent("");
    // The lock file is outside it: it stays open for writing, which would prevent remounting the
    // disk read-only.
    let disk = SmallDisk::mount(&stage.agent().state_dir().join("sandboxes"));
    stage.restart_agent();
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    (sandbox, disk)
}

#[test]
fn a_full_disk_refuses_changes_and_opens_nothing() {
    let (sandbox, disk) = sandbox_on_small_disk();
    let tally = sandbox.start_counted_flood();
    disk.fill();
    assert_changes_refused(&sandbox, "disk");
    kill_and_restart(&sandbox);
    assert_changes_refused(&sandbox, "disk");
    disk.empty();
    let begin = Instant::now();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    report_duration("full disk: a change after there is room", begin);
    tally.assert_no_leak_or_loss("full disk");
    assert_policy_can_change(&sandbox);
}

#[test]
fn a_read_only_disk_refuses_changes_and_opens_nothing() {
    let (sandbox, disk) = sandbox_on_small_disk();
    let tally = sandbox.start_counted_flood();
    disk.allow_writing(false);
    assert_changes_refused(&sandbox, "Read-only");
    // Deleting a sandbox is a change, too: the sandbox stays enforced, not only until the next
    // check.
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    for _ in 0..5 {
        let answer = sandbox.testbed.request("DELETE", &path, &Value::Null);
        assert_eq!(answer.status, 500, "{}", answer.body);
        assert_eq!(sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT), ProbeResult::Refused);
    }
    kill_and_restart(&sandbox);
    assert_changes_refused(&sandbox, "Read-only");
    disk.allow_writing(true);
    let begin = Instant::now();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    report_duration("read-only disk: a change after it is writable", begin);
    tally.assert_no_leak_or_loss("read-only disk");
    assert_policy_can_change(&sandbox);
    sandbox.delete();
}

/// Asserts that updates and new sandboxes are refused, that the log says why, and that the policy in
/// force stays.
#[track_caller]
fn assert_changes_refused(sandbox: &TestSandbox, why: &str) {
    let network = json!({ "network": { "denyOut": ["8.8.8.8"] } });
    let newcomer = sandbox.testbed.add_sandbox();
    for each in [sandbox, &newcomer] {
        let path = format!("/agent/v1/sandboxes/{}", each.id);
        let answer = sandbox.testbed.request("PUT", &path, &each.sandbox_spec(&network));
        assert_eq!(answer.status, 500, "{}", answer.body);
        assert_log_has_cause(&sandbox.testbed, &answer.body, why);
    }
    let path = format!("/agent/v1/sandboxes/{}", newcomer.id);
    assert_eq!(sandbox.testbed.request("GET", &path, &Value::Null).status, 404);
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
    assert_eq!(sandbox.status()["status"], "enforcing");
}

/// Asserts that the log has the cause of the failure that an answer refers to.
#[track_caller]
fn assert_log_has_cause(testbed: &Testbed, answer: &str, why: &str) {
    let error_id = answer.split("(error ").nth(1).and_then(|rest| rest.split(':').next());
    let error_id = error_id.unwrap_or_else(|| panic!("no identifier: {answer}"));
    let log = testbed.agent().log_path();
    let logged = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().any(|line| line.contains(error_id) && line.contains(why)).then_some(())
    };
    eventually(&format!("error {error_id} is logged with {why}"), logged).or_fail("reading");
}

/// A small file system.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).or_fail("making the state directory");
        let (kind, size) = (Some("tmpfs"), Some("size=256k,mode=700"));
        mount(kind, at, kind, MsFlags::empty(), size).or_fail("mounting a small file system");
        Self(at.to_owned())
    }

    fn filler_path(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn fill(&self) {
        let full = fs::write(self.filler_path(), vec![0; 1 << 20]);
        assert!(full.is_err(), "a megabyte fits into 256 KiB");
    }

    fn empty(&self) {
        fs::remove_file(self.filler_path()).or_fail("making room");
    }

    fn allow_writing(&self, allow: bool) {
        let read_only = if allow { MsFlags::empty() } else { MsFlags::MS_RDONLY };
        let flags = MsFlags::MS_REMOUNT | read_only;
        let none = None::<&str>;
        mount(none, &self.0, none, flags, none).or_fail("mounting it anew");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
