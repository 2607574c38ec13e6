//! A disk that is full, or that nobody may write to.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy_tests::{
    probe::Seen,
    server,
    stage::{Guest, OPENED, OrFail as _, Stage},
};
use serde_json::{Value, json};

use super::{can_be_changed, restart, took};

/// A sandbox whose agent keeps its state on a small disk.
fn on_a_small_disk() -> (Guest, Disk) {
    let stage = Stage::without_agent("");
    // The lock beside it stays open for writing, which would keep the disk writable.
    let disk = Disk::mount(&stage.agent().state_dir().join("sandboxes"));
    stage.restart();
    let sandbox = stage.sandbox();
    sandbox.may_only_reach(&OPENED);
    (sandbox, disk)
}

#[test]
fn a_full_disk_refuses_changes_and_opens_nothing() {
    let (sandbox, disk) = on_a_small_disk();
    let tally = sandbox.tally();
    disk.fill();
    refuses_changes(&sandbox, "disk");
    restart(&sandbox);
    refuses_changes(&sandbox, "disk");
    disk.empty();
    let begin = Instant::now();
    sandbox.may_only_reach(&OPENED);
    took("full disk: a change after there is room", begin);
    tally.is_clean("full disk");
    can_be_changed(&sandbox);
}

#[test]
fn a_read_only_disk_refuses_changes_and_opens_nothing() {
    let (sandbox, disk) = on_a_small_disk();
    let tally = sandbox.tally();
    disk.allow_writing(false);
    refuses_changes(&sandbox, "Read-only");
    // To forget a sandbox is a change, too: it stays enforced, not for the time until somebody looks.
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    for _ in 0..5 {
        let answer = sandbox.stage.request("DELETE", &path, &Value::Null);
        assert_eq!(answer.code, 500, "{}", answer.body);
        assert_eq!(sandbox.tcp("8.8.8.9", server::ECHO), Seen::Refused);
    }
    restart(&sandbox);
    refuses_changes(&sandbox, "Read-only");
    disk.allow_writing(true);
    let begin = Instant::now();
    sandbox.may_only_reach(&OPENED);
    took("read-only disk: a change after it is writable", begin);
    tally.is_clean("read-only disk");
    can_be_changed(&sandbox);
    sandbox.delete();
}

/// Neither a change nor a new sandbox is accepted, and what is in force stays.
#[track_caller]
fn refuses_changes(sandbox: &Guest, why: &str) {
    let network = json!({ "network": { "denyOut": ["8.8.8.8"] } });
    let newcomer = sandbox.stage.sandbox();
    for each in [sandbox, &newcomer] {
        let path = format!("/agent/v1/sandboxes/{}", each.id);
        let answer = sandbox.stage.request("PUT", &path, &each.spec(&network));
        assert_eq!(answer.code, 500, "{}", answer.body);
        assert!(answer.body.contains(why), "{}", answer.body);
    }
    let path = format!("/agent/v1/sandboxes/{}", newcomer.id);
    assert_eq!(sandbox.stage.request("GET", &path, &Value::Null).code, 404);
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
    assert_eq!(sandbox.status()["status"], "enforcing");
}

/// A small file system.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).or_fail("making the state directory");
        let (kind, size) = (Some("tmpfs"), Some("size=256k,mode=700"));
        mount(kind, at, kind, MsFlags::empty(), size).or_fail("mounting a small file system");
        Self(at.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn fill(&self) {
        let full = fs::write(self.ballast(), vec![0; 1 << 20]);
        assert!(full.is_err(), "a megabyte fits into 256 KiB");
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).or_fail("making room");
    }

    fn allow_writing(&self, allow: bool) {
        let read_only = if allow { MsFlags::empty() } else { MsFlags::MS_RDONLY };
        let flags = MsFlags::MS_REMOUNT | read_only;
        let none = None::<&str>;
        mount(none, &self.0, none, flags, none).or_fail("mounting it anew");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
