//! Runs the real `policy-agent` in a world's host, with directories of its own.

mod client;
pub mod clock;
mod command_line;
pub mod unit;

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

pub use client::{Answer, request_at};
pub use clock::Clock;
pub use command_line::Ran;

use crate::{
    patience::{PATIENCE, eventually, eventually_within},
    world::{Bpffs, Namespace, unique},
};

/// How long the agent may take to start: so many times what anything may take. The kernel verifies its
/// programs meanwhile, those of all tests that begin at the same time.
const STARTS: u32 = 2;
/// What of the agent's log is shown when something fails.
const TAIL: usize = 60;

/// One agent: its configuration, its directories, and the process while it runs.
pub struct Agent {
    process: Option<Child>,
    bpffs: Bpffs,
    directory: TempDir,
    launcher: Vec<String>,
}

impl Agent {
    /// Writes the configuration: directories of its own, and `config` (TOML) behind them.
    pub fn configure(config: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&unique("agent")).tempdir()?;
        let (bpffs, launcher) = (Bpffs::find()?, Vec::new());
        let agent = Self { process: None, bpffs, directory, launcher };
        let state = agent.directory.path().join("state");
        let bpffs = agent.bpffs.directory();
        let text = format!("state_dir = {state:?}\nbpffs = {bpffs:?}\n{config}\n");
        fs::write(agent.config(), text)?;
        Ok(agent)
    }

    /// Starts it in the namespace `host`, and waits until it answers.
    pub fn start(&mut self, host: &Namespace) -> Result<()> {
        let log = File::options().append(true).create(true).open(self.log_file())?;
        let binary = binary()?.to_string_lossy().into_owned();
        let words = self.launcher.iter().chain([&binary]);
        let mut words = words.map(String::as_str);
        let mut command = host.command(words.next().unwrap_or_default())?;
        command.args(words).args(["run", "--config"]).arg(self.config());
        command.arg("--socket").arg(self.socket());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {binary}"))?;
        self.process = Some(child);
        let healthy =
            eventually_within(STARTS * *PATIENCE, "the agent answers", || match self.exited() {
                Some(status) => Some(Err(status)),
                None => self.is_healthy().then_some(Ok(())),
            });
        match healthy {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the agent ended ({status}); its log:\n{}", self.log()),
            Err(error) => Err(error.context(format!("its log:\n{}", self.log()))),
        }
    }

    /// From the next start on, it is run by this program, which has to become it.
    pub fn launch_by(&mut self, launcher: Vec<String>) {
        self.launcher = launcher;
    }

    /// Whether it answers `GET /health`.
    pub fn is_healthy(&self) -> bool {
        self.request("GET", "/health", "").is_ok_and(|answer| answer.code < 300)
    }

    /// Kills it: no time to clean up.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).map(|_| ())
    }

    /// Asks it to stop, and returns how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.process.take().context("the agent does not run")?;
        kill(Pid::from_raw(child.id().cast_signed()), signal).context("signalling the agent")?;
        let status = eventually("the agent ends", || child.try_wait().ok().flatten());
        if status.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        status
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        match self.process.as_mut()?.try_wait() {
            Ok(status) => status,
            Err(_) => Some(ExitStatus::from_raw(-1)),
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// Where it keeps its state, if it is not changed by the configuration.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A directory for files of a test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where its pins are.
    pub fn bpffs(&self) -> &Bpffs {
        &self.bpffs
    }

    /// The end of what it logged, over all its runs.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Where it logs.
    pub fn log_file(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.process.is_some()
            && let Err(error) = self.stop()
        {
            eprintln!("the agent did not end as asked: {error:#}");
        }
    }
}

/// The binary under test: `POLICY_AGENT_BIN`, or the one that was built with the program which asks.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("POLICY_AGENT_BIN") {
        Some(path) => PathBuf::from(path),
        None => beside_this_program()?,
    };
    path.canonicalize().with_context(|| {
        format!("{} is missing: run `cargo xtask test`, which builds it first", path.display())
    })
}

/// Programs are in the directory of a profile, tests in its `deps/`.
fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("looking for this program's own path")?;
    let profile = this.ancestors().skip(1).find(|it| !it.ends_with("deps"));
    Ok(profile.context("this program is in no directory")?.join("policy-agent"))
}
