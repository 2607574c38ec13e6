//! A program that runs while something is measured, and ends on drop.

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

use crate::{
    patience::eventually,
    world::{command, unique},
};

/// A directory of its own, for what a program reads and writes.
pub fn directory(role: &str) -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix(&unique(role)).tempdir()?)
}

/// A program in the foreground, with its children.
pub struct Process {
    child: Child,
    what: String,
    directory: TempDir,
}

impl Process {
    /// Starts it; what it prints goes to its directory, which goes with it.
    pub fn start(mut command: Command, directory: TempDir) -> Result<Self> {
        let log = File::create(log(&directory))?;
        let what = command::shown(&command);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {what}"))?;
        Ok(Self { child, what, directory })
    }

    /// Fails with what it printed when it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let status = self.child.try_wait()?;
        ensure!(status.is_none(), "{} ended: {}", self.what, self.printed());
        Ok(())
    }

    /// What it printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(log(&self.directory)).unwrap_or_default()
    }

    /// Its ID and those of its children.
    pub fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        [own].into_iter().chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let all = self.pids();
        let _ = signal(self.child.id(), Signal::SIGTERM);
        let ended = eventually("it ends", || self.child.try_wait().ok().flatten());
        if ended.is_err() {
            eprintln!("{} did not end as asked", self.what);
            // Not waited for yet, so these IDs are still theirs.
            for pid in all {
                let _ = signal(pid, Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}

fn signal(pid: u32, signal: Signal) -> nix::Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), signal)
}

fn log(directory: &TempDir) -> PathBuf {
    directory.path().join("log")
}
