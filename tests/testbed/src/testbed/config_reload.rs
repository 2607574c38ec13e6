//! Reloads the configuration of a running agent.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{OrFail as _, Testbed};
use crate::wait::eventually;

/// What the log says of a reload that succeeded.
pub const RELOADED: &str = "SIGHUP: the configuration is reloaded";
/// What it says of one that failed.
pub const RELOAD_REFUSED: &str = "SIGHUP: the configuration was not reloaded";

/// The lines of a configuration that name the agent's own directories.
const DIRECTORY_LINES: usize = 2;

impl Testbed {
    /// Writes a configuration (TOML) with the agent's own directories, sends SIGHUP, and waits for this
    /// outcome in the log.
    #[track_caller]
    pub fn reload_config(&self, config: &str, outcome: &str) {
        let path = self.agent().config_path();
        let before = fs::read_to_string(&path).or_fail("reading the configuration");
        let own: Vec<&str> = before.lines().take(DIRECTORY_LINES).collect();
        let config = self.fill_in(config);
        fs::write(&path, format!("{}\n{config}\n", own.join("\n"))).or_fail("writing it");
        let told = || self.agent_log().matches(outcome).count();
        let times = told();
        let pid = self.agent().pid().or_fail("the agent's process");
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP).or_fail("signalling");
        eventually(outcome, || (told() > times).then_some(())).or_fail(&self.agent_log());
    }

    /// The whole log of the agent.
    #[track_caller]
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.agent().log_path()).or_fail("reading the log")
    }
}
