//! The agent's command line, as a user would type it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{AgentProcess, agent_binary};

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct CliOutput {
    /// Its exit code; -1 when a signal ended it.
    pub exit_code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl CliOutput {
    /// What it printed as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or(Value::Null)
    }

    /// What it printed as JSON lines.
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl AgentProcess {
    /// Runs `policy-agent` with these arguments.
    pub fn cli(&self, arguments: &[&str]) -> Result<CliOutput> {
        self.cli_with_stdin(arguments, "")
    }

    /// Runs `policy-agent` with these arguments and this on its stdin.
    pub fn cli_with_stdin(&self, arguments: &[&str], stdin: &str) -> Result<CliOutput> {
        let mut command = self.cli_command()?;
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting policy-agent")?;
        if let Some(mut pipe) = child.stdin.take() {
            // A command that does not read its stdin is gone by now.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output().context("waiting for policy-agent")?;
        Ok(CliOutput {
            exit_code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `policy-agent` for this agent's socket, without arguments.
    pub fn cli_command(&self) -> Result<Command> {
        let mut command = Command::new(agent_binary()?);
        command.env("POLICY_AGENT_SOCKET", self.socket_path()).env("NO_COLOR", "1");
        Ok(command)
    }
}
