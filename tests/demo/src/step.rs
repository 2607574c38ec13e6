//! One step: an action on the agent, then attempts from a sandbox.

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    output::{self, DemoSummary, ResultRow},
    page_fetch::PageFetch,
    setup::DemoSetup,
};
use policy_testbed::{
    network::Sandbox,
    probe::{self, ProbeKind, ProbeResult},
    test_servers,
};

/// An attempt and its expected result.
pub(crate) struct ExpectedAttempt {
    pub(crate) attempt: DemoAttempt,
    pub(crate) expected: ProbeResult,
}

/// A destination that a sandbox tries to reach.
#[derive(Clone, Copy)]
pub(crate) enum DemoAttempt {
    /// An address.
    Address(ProbeKind, &'static str),
    /// A page, by a name or by an address.
    Page(PageFetch),
}

/// The action before the attempts.
pub(crate) enum StepAction {
    /// Applies this configuration to the sandbox.
    Apply(Value),
    /// Applies it while the sandbox has a connection to this address.
    ApplyWhileConnected(Value, &'static str),
    /// Kills the agent. It starts again after the attempts.
    KillAgent,
}

/// An action, and attempts.
pub(crate) struct DemoStep {
    pub(crate) title: &'static str,
    pub(crate) sandbox: &'static str,
    pub(crate) action: StepAction,
    pub(crate) attempts: Vec<ExpectedAttempt>,
}

impl DemoStep {
    /// Runs the step and prints its results.
    pub(crate) fn run(&self, demo: &mut DemoSetup, tally: &mut DemoSummary) -> Result<()> {
        output::print_heading(self.title);
        let mut lines = Vec::new();
        // A killed agent cannot be queried. Its verdicts stay the same, so query them first.
        let reasons = if matches!(self.action, StepAction::KillAgent) {
            self.explain_attempts(demo)?
        } else {
            vec![]
        };
        match &self.action {
            StepAction::Apply(config) => demo.apply(self.sandbox, config)?,
            StepAction::ApplyWhileConnected(config, to) => {
                let mut stream = self.connect_echo(demo, to)?;
                demo.apply(self.sandbox, config)?;
                lines.push(self.probe_open_connection(&mut stream, to));
            }
            StepAction::KillAgent => demo.agent.kill()?,
        }
        let seen: Vec<ProbeResult> = self
            .attempts
            .iter()
            .map(|row| row.attempt.run_from(demo, demo.sandbox_by_id(self.sandbox)))
            .collect::<Result<_>>()?;
        if matches!(self.action, StepAction::KillAgent) {
            demo.agent.start(&demo.network.host)?;
        }
        let reasons = if reasons.is_empty() { self.explain_attempts(demo)? } else { reasons };
        for ((row, seen), (allowed, reason)) in self.attempts.iter().zip(seen).zip(reasons) {
            let agrees = allowed == (row.expected == ProbeResult::Answered);
            lines.push(self.result_row(row, seen, agrees, reason));
        }
        output::print_table(&lines, tally);
        Ok(())
    }

    /// Returns the agent's verdict and reason for each row.
    fn explain_attempts(&self, demo: &DemoSetup) -> Result<Vec<(bool, String)>> {
        self.attempts.iter().map(|row| row.attempt.explain(demo, self.sandbox)).collect()
    }

    fn result_row(
        &self,
        row: &ExpectedAttempt,
        seen: ProbeResult,
        agrees: bool,
        reason: String,
    ) -> ResultRow {
        ResultRow {
            sandbox: self.sandbox,
            destination: row.attempt.to_string(),
            expected: row.expected.clone(),
            result: seen,
            reason: if agrees { reason } else { format!("explain disagrees: {reason}") },
            explain_agrees: agrees,
        }
    }

    fn connect_echo(&self, demo: &DemoSetup, to: &str) -> Result<TcpStream> {
        let to = SocketAddr::new(to.parse()?, test_servers::ECHO_PORT);
        let mut stream = probe::connect(&demo.sandbox_by_id(self.sandbox).namespace, to)?;
        probe::echo(&mut stream, b"hello").context("the connection does not work")?;
        Ok(stream)
    }

    fn probe_open_connection(&self, stream: &mut TcpStream, to: &str) -> ResultRow {
        let seen = match probe::echo(stream, b"still there?") {
            Ok(()) => ProbeResult::Answered,
            Err(error) => probe::result_from_error(&error),
        };
        ResultRow {
            sandbox: self.sandbox,
            destination: format!(
                "{:<9}{to}, open",
                ProbeKind::Tcp(test_servers::ECHO_PORT).to_string()
            ),
            expected: ProbeResult::Refused,
            result: seen,
            reason: "8  deny_out  the connection is reset".to_owned(),
            explain_agrees: true,
        }
    }
}

impl DemoAttempt {
    /// Runs the attempt from inside a sandbox.
    pub(crate) fn run_from(&self, demo: &DemoSetup, from: &Sandbox) -> Result<ProbeResult> {
        match self {
            Self::Address(how, to) => Ok(probe::probe(&from.namespace, *how, to.parse()?)),
            Self::Page(page) => page.fetch(&from.namespace, demo.agent.directory()),
        }
    }

    /// Returns the agent's verdict and reason for the attempt from the sandbox with this ID.
    pub(crate) fn explain(&self, demo: &DemoSetup, id: &str) -> Result<(bool, String)> {
        let asked = self.explain_arguments();
        let mut arguments = vec!["explain", id, "-o", "json"];
        arguments.extend(asked.iter().map(String::as_str));
        let ran = demo.agent.cli(&arguments)?;
        let answer = ran.json();
        let reason = answer["reason"].as_str().with_context(|| ran.stderr.clone())?;
        let rule = rule_text(&answer["rule"]);
        Ok((
            ran.exit_code == 0,
            format!("{}  {reason}  {rule}", answer["line"]).trim_end().to_owned(),
        ))
    }

    /// The arguments of `explain` for the destination.
    fn explain_arguments(&self) -> Vec<String> {
        let (how, to) = match self {
            Self::Page(page) => return page.explain_arguments(),
            Self::Address(how, to) => (*how, *to),
        };
        let (protocol, port) = match how {
            ProbeKind::Tcp(port) => ("tcp", Some(port)),
            ProbeKind::Udp(port) => ("udp", Some(port)),
            ProbeKind::Ping if to.contains(':') => ("icmpv6", None),
            ProbeKind::Ping => ("icmp", None),
        };
        let mut words = [to, "--proto", protocol].map(str::to_owned).to_vec();
        words.extend(port.into_iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
        words
    }
}

impl fmt::Display for DemoAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(how, to) => write!(f, "{:<9}{to}", how.to_string()),
            Self::Page(page) => page.fmt(f),
        }
    }
}

/// `network.denyOut[0]: 0.0.0.0/0`
fn rule_text(rule: &Value) -> String {
    let (Some(list), Some(entry)) = (rule["list"].as_str(), rule["entry"].as_str()) else {
        return String::new();
    };
    let list = list.strip_prefix("network.").unwrap_or(list);
    match &rule["index"] {
        Value::Number(index) => format!("{list}[{index}]: {entry}"),
        _ => format!("{list}: {entry}"),
    }
}
