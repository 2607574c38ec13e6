//! A program that runs during a measurement and ends on drop.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use policy_testbed::{network::command, wait::eventually};

/// A program in the foreground, and its children.
pub(crate) struct BenchProcess {
    child: Child,
    command_line: String,
    directory: TempDir,
}

impl BenchProcess {
    /// Starts the program. Its output is written to its directory, which is deleted with it.
    pub(crate) fn start(mut command: Command, directory: TempDir) -> Result<Self> {
        let log = File::create(log_path(&directory))?;
        let what = command::command_line(&command);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {what}"))?;
        Ok(Self { child, command_line: what, directory })
    }

    /// Fails with the program's output if it has exited.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        let status = self.child.try_wait()?;
        ensure!(status.is_none(), "{} ended: {}", self.command_line, self.output());
        Ok(())
    }

    /// The program's output.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(log_path(&self.directory)).unwrap_or_default()
    }

    /// The IDs of the program and its children.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        [own].into_iter().chain(children).collect()
    }
}

impl Drop for BenchProcess {
    fn drop(&mut self) {
        let all = self.pids();
        let _ = send_signal(self.child.id(), Signal::SIGTERM);
        let ended = eventually("it ends", || self.child.try_wait().ok().flatten());
        if ended.is_err() {
            eprintln!("{} did not end as asked", self.command_line);
            // The program has not been reaped, so the IDs are not reused.
            for pid in all {
                let _ = send_signal(pid, Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}

fn send_signal(pid: u32, signal: Signal) -> nix::Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), signal)
}

fn log_path(directory: &TempDir) -> PathBuf {
    directory.path().join("log")
}
