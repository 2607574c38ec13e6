//! Runs the real `policy-agent` in the host of a test network, with its own directories.

mod api_client;
mod command_line;
pub mod fake_clock;
pub mod systemd_unit;

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

pub use api_client::{ApiResponse, send_request_to};
pub use command_line::CliOutput;
pub use fake_clock::FakeClock;

use crate::{
    network::{BpffsDirectory, NetworkNamespace, unique_directory},
    wait::{WAIT_LIMIT, eventually, eventually_within},
};

/// The time limit of a start, as a multiple of [`WAIT_LIMIT`]. The kernel verifies the programs
/// during it, for all tests that start at the same time.
const START_TIMEOUT_FACTOR: u32 = 2;
/// The number of log lines shown when something fails.
const LOG_TAIL_LINES: usize = 60;

/// One agent: its configuration, its directories, and its process while it runs.
pub struct AgentProcess {
    process: Option<Child>,
    bpffs: BpffsDirectory,
    directory: TempDir,
    launch_prefix: Vec<String>,
    /// Another agent than the one under test.
    other_binary: Option<PathBuf>,
}

impl AgentProcess {
    /// Writes a configuration with its own directories, followed by `config` (TOML).
    pub fn configure(config: &str) -> Result<Self> {
        let directory = unique_directory("agent")?;
        let (bpffs, launcher) = (BpffsDirectory::create()?, Vec::new());
        let agent =
            Self { process: None, bpffs, directory, launch_prefix: launcher, other_binary: None };
        let state = agent.directory.path().join("state");
        let bpffs = agent.bpffs.path();
        let text = format!("state_dir = {state:?}\nbpffs = {bpffs:?}\n{config}\n");
        fs::write(agent.config_path(), text)?;
        Ok(agent)
    }

    /// Starts the agent in the namespace `host` and waits until it responds.
    pub fn start(&mut self, host: &NetworkNamespace) -> Result<()> {
        let log = File::options().append(true).create(true).open(self.log_path())?;
        let binary = self.other_binary.clone().map_or_else(agent_binary, Ok)?;
        let binary = binary.to_string_lossy().into_owned();
        let words = self.launch_prefix.iter().chain([&binary]);
        let mut words = words.map(String::as_str);
        let mut command = host.command(words.next().unwrap_or_default())?;
        command.args(words).args(["run", "--config"]).arg(self.config_path());
        command.arg("--socket").arg(self.socket_path());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {binary}"))?;
        self.process = Some(child);
        let healthy = eventually_within(
            START_TIMEOUT_FACTOR * *WAIT_LIMIT,
            "the agent answers",
            || match self.exit_status() {
                Some(status) => Some(Err(status)),
                None => self.is_healthy().then_some(Ok(())),
            },
        );
        match healthy {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the agent ended ({status}); its log:\n{}", self.log_tail()),
            Err(error) => Err(error.context(format!("its log:\n{}", self.log_tail()))),
        }
    }

    /// Sets a program that runs the agent from the next start on. The program must `exec` the
    /// agent.
    pub fn set_launch_prefix(&mut self, launcher: Vec<String>) {
        self.launch_prefix = launcher;
    }

    /// Sets which agent runs from the next start on. `None` is the one under test.
    pub fn set_binary(&mut self, binary: Option<PathBuf>) {
        self.other_binary = binary;
    }

    /// Returns whether the agent responds to `GET /health`.
    pub fn is_healthy(&self) -> bool {
        self.request("GET", "/health", "").is_ok_and(|answer| answer.status < 300)
    }

    /// Kills the agent, which cannot clean up.
    pub fn kill(&mut self) -> Result<()> {
        self.signal_and_wait(Signal::SIGKILL).map(|_| ())
    }

    /// Stops the agent with SIGTERM and returns its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal_and_wait(Signal::SIGTERM)
    }

    /// Asks the agent to stop, and does not wait.
    pub fn begin_stop(&self) -> Result<()> {
        let child = self.process.as_ref().context("the agent does not run")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)
            .context("signalling the agent")
    }

    fn signal_and_wait(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.process.take().context("the agent does not run")?;
        kill(Pid::from_raw(child.id().cast_signed()), signal).context("signalling the agent")?;
        let status = eventually("the agent ends", || child.try_wait().ok().flatten());
        if status.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        status
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        match self.process.as_mut()?.try_wait() {
            Ok(status) => status,
            Err(_) => Some(ExitStatus::from_raw(-1)),
        }
    }

    /// The process ID, while the agent runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The agent's Unix socket.
    pub fn socket_path(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    /// The agent's configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// The agent's state directory, unless the configuration names another one.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A directory for the files of a test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The agent's directory for pins.
    pub fn bpffs(&self) -> &BpffsDirectory {
        &self.bpffs
    }

    /// The end of the agent's log, across all runs.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// The agent's log file.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        if self.process.is_some()
            && let Err(error) = self.stop()
        {
            eprintln!("the agent did not end as asked: {error:#}");
        }
    }
}

/// The binary under test: `POLICY_AGENT_BIN`, or the one built together with the running program.
pub fn agent_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("POLICY_AGENT_BIN") {
        Some(path) => PathBuf::from(path),
        None => binary_beside_this_program()?,
    };
    path.canonicalize().with_context(|| {
        format!("{} is missing: run `cargo xtask test`, which builds it first", path.display())
    })
}

/// Programs are in the directory of a profile, tests in its `deps/`.
fn binary_beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("looking for this program's own path")?;
    let profile = this.ancestors().skip(1).find(|it| !it.ends_with("deps"));
    Ok(profile.context("this program is in no directory")?.join("policy-agent"))
}
