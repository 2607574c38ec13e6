//! The agent's command line.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{AgentProcess, agent_binary};

/// The result of a command.
#[derive(Clone, Debug)]
pub struct CliOutput {
    /// The exit code; -1 if a signal terminated the command.
    pub exit_code: i32,
    /// The command's standard output.
    pub stdout: String,
    /// The command's standard error.
    pub stderr: String,
}

impl CliOutput {
    /// Standard output as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or(Value::Null)
    }

    /// Standard output as JSON lines.
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl AgentProcess {
    /// Runs `policy-agent` with these arguments.
    pub fn cli(&self, arguments: &[&str]) -> Result<CliOutput> {
        self.cli_with_stdin(arguments, "")
    }

    /// Runs `policy-agent` with these arguments and this standard input.
    pub fn cli_with_stdin(&self, arguments: &[&str], stdin: &str) -> Result<CliOutput> {
        let mut command = self.cli_command()?;
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting policy-agent")?;
        if let Some(mut pipe) = child.stdin.take() {
            // A command that does not read its stdin may have exited already.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output().context("waiting for policy-agent")?;
        Ok(CliOutput {
            exit_code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Returns a `policy-agent` command for this agent's socket, without arguments.
    pub fn cli_command(&self) -> Result<Command> {
        let mut command = Command::new(agent_binary()?);
        command.env("POLICY_AGENT_SOCKET", self.socket_path()).env("NO_COLOR", "1");
        Ok(command)
    }
}
