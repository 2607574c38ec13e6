//! A root of its own: everything of this machine's Debian, in a mount namespace where changes go to a
//! tmpfs. Nothing of it is left when it is dropped.

use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use policy_testbed::{testbed::OrFail as _, wait::eventually};

/// Mounts the root and waits until the test's end of the pipe is closed. The tmpfs is the namespace's
/// own.
const MOUNT_SCRIPT: &str = r#"
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for directory in /proc /sys /dev /tmp; do mount --rbind "$directory" "$1/root$directory"; done
mount -t tmpfs tmpfs "$1/root/run"
touch "$1/root/run/mounted"
exec cat
"#;

/// The root. Its processes have to end before it is dropped.
pub(crate) struct DebianRoot {
    holder: Child,
    directory: tempfile::TempDir,
}

impl DebianRoot {
    /// Mounts it.
    #[track_caller]
    pub(crate) fn mount() -> Self {
        // Outside of /tmp, which is part of the root.
        let directory = tempfile::tempdir_in("/dev/shm").or_fail("a directory");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT_SCRIPT, "sh"]);
        unshare.arg(directory.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = unshare.spawn().or_fail("unshare");
        let root = Self { holder, directory };
        let mounted = || root.run(&["test", "-e", "/run/mounted"]).status.success().then_some(());
        eventually("it is mounted", mounted).or_fail("mounting a root");
        root
    }

    /// The words before a command that run it in the root.
    pub(crate) fn launch_prefix(&self) -> Vec<String> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        let root = self.directory.path().join("root");
        let words = ["nsenter", &namespace, "chroot", &root.to_string_lossy()];
        words.map(str::to_owned).into()
    }

    /// Runs a command in the root.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let prefix = self.launch_prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(words).env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null()).output().or_fail("entering the root")
    }

    /// Runs a command in the root, asserts that it succeeds and returns its output.
    #[track_caller]
    pub(crate) fn expect(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {stdout}\n{stderr}");
        stdout
    }

    /// Whether a path exists in the root.
    #[track_caller]
    pub(crate) fn has(&self, path: &str) -> bool {
        self.run(&["test", "-e", path]).status.success()
    }

    /// A directory that this machine and the root share.
    pub(crate) fn shared_directory() -> PathBuf {
        PathBuf::from("/tmp")
    }
}

impl Drop for DebianRoot {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
