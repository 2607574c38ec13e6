//! One act: the agent is told something, and a sandbox tries to reach things.

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Demo,
    page::Page,
    shown::{self, Line, Tally},
};
use crate::{
    probe::{self, How, Seen},
    server,
    world::Sandbox,
};

/// An attempt and what should become of it.
pub(super) struct Row {
    pub attempt: Attempt,
    pub expected: Seen,
}

/// What a sandbox tries to reach.
#[derive(Clone, Copy)]
pub(super) enum Attempt {
    /// An address.
    Address(How, &'static str),
    /// A page, by a name or by an address.
    Page(Page),
}

/// What happens before the attempts.
pub(super) enum Turn {
    /// The sandbox gets this configuration.
    Apply(Value),
    /// The same, while it has a connection to this address.
    ApplyWhileConnected(Value, &'static str),
    /// The agent is killed. It is started again after the attempts.
    KillAgent,
}

/// A turn, and attempts.
pub(super) struct Act {
    pub title: &'static str,
    pub sandbox: &'static str,
    pub turn: Turn,
    pub rows: Vec<Row>,
}

impl Act {
    /// Plays and shows it.
    pub(super) fn play(&self, demo: &mut Demo, tally: &mut Tally) -> Result<()> {
        shown::heading(self.title);
        let mut lines = Vec::new();
        // While the agent is away it cannot be asked; its answers stay the same.
        let reasons =
            if matches!(self.turn, Turn::KillAgent) { self.reasons(demo)? } else { vec![] };
        match &self.turn {
            Turn::Apply(config) => self.apply(demo, config)?,
            Turn::ApplyWhileConnected(config, to) => {
                let mut stream = self.connect(demo, to)?;
                self.apply(demo, config)?;
                lines.push(self.next_segment(&mut stream, to));
            }
            Turn::KillAgent => demo.agent.kill()?,
        }
        let seen: Vec<Seen> = self
            .rows
            .iter()
            .map(|row| row.attempt.make(demo, demo.sandbox(self.sandbox)))
            .collect::<Result<_>>()?;
        if matches!(self.turn, Turn::KillAgent) {
            demo.agent.start(&demo.world.host)?;
        }
        let reasons = if reasons.is_empty() { self.reasons(demo)? } else { reasons };
        for ((row, seen), (allowed, reason)) in self.rows.iter().zip(seen).zip(reasons) {
            let agrees = allowed == (row.expected == Seen::Answered);
            lines.push(self.line(row, seen, agrees, reason));
        }
        shown::table(&lines, tally);
        Ok(())
    }

    fn apply(&self, demo: &Demo, config: &Value) -> Result<()> {
        let spec = demo.sandbox(self.sandbox).spec(config).to_string();
        let ran = demo.agent.cli_with(&["apply", "-f", "-"], &spec)?;
        ensure!(ran.code == 0, "`policy-agent apply` ended with {}: {}", ran.code, ran.stderr);
        shown::applied(self.sandbox, config);
        Ok(())
    }

    /// What the agent says of each row: whether it is allowed, and why.
    fn reasons(&self, demo: &Demo) -> Result<Vec<(bool, String)>> {
        self.rows.iter().map(|row| row.attempt.explain(demo, self.sandbox)).collect()
    }

    fn line(&self, row: &Row, seen: Seen, agrees: bool, reason: String) -> Line {
        Line {
            sandbox: self.sandbox,
            destination: row.attempt.to_string(),
            expected: row.expected.clone(),
            seen,
            reason: if agrees { reason } else { format!("explain disagrees: {reason}") },
            agrees,
        }
    }

    fn connect(&self, demo: &Demo, to: &str) -> Result<TcpStream> {
        let to = SocketAddr::new(to.parse()?, server::ECHO);
        let mut stream = probe::connect(&demo.sandbox(self.sandbox).inside, to)?;
        probe::echo(&mut stream, b"hello").context("the connection does not work")?;
        Ok(stream)
    }

    fn next_segment(&self, stream: &mut TcpStream, to: &str) -> Line {
        let seen = match probe::echo(stream, b"still there?") {
            Ok(()) => Seen::Answered,
            Err(error) => probe::seen(&error),
        };
        Line {
            sandbox: self.sandbox,
            destination: format!("{:<9}{to}, open", How::Tcp(server::ECHO).to_string()),
            expected: Seen::Refused,
            seen,
            reason: "8  deny_out  the connection is reset".to_owned(),
            agrees: true,
        }
    }
}

impl Attempt {
    /// Makes it from inside a sandbox.
    pub(super) fn make(&self, demo: &Demo, from: &Sandbox) -> Result<Seen> {
        match self {
            Self::Address(how, to) => Ok(probe::attempt(&from.inside, *how, to.parse()?)),
            Self::Page(page) => page.fetch(&from.inside, demo.agent.directory()),
        }
    }

    /// What the agent says of it: whether it is allowed to the sandbox of this ID, and why.
    pub(super) fn explain(&self, demo: &Demo, id: &str) -> Result<(bool, String)> {
        let asked = self.question();
        let mut arguments = vec!["explain", id, "-o", "json"];
        arguments.extend(asked.iter().map(String::as_str));
        let ran = demo.agent.cli(&arguments)?;
        let answer = ran.json();
        let reason = answer["reason"].as_str().with_context(|| ran.stderr.clone())?;
        let rule = rule(&answer["rule"]);
        Ok((ran.code == 0, format!("{}  {reason}  {rule}", answer["line"]).trim_end().to_owned()))
    }

    /// The arguments of `explain` that say where it goes.
    fn question(&self) -> Vec<String> {
        let (how, to) = match self {
            Self::Page(page) => return page.question(),
            Self::Address(how, to) => (*how, *to),
        };
        let (protocol, port) = match how {
            How::Tcp(port) => ("tcp", Some(port)),
            How::Udp(port) => ("udp", Some(port)),
            How::Ping if to.contains(':') => ("icmpv6", None),
            How::Ping => ("icmp", None),
        };
        let mut words = [to, "--proto", protocol].map(str::to_owned).to_vec();
        words.extend(port.into_iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
        words
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(how, to) => write!(f, "{:<9}{to}", how.to_string()),
            Self::Page(page) => page.fmt(f),
        }
    }
}

/// `network.denyOut[0]: 0.0.0.0/0`
fn rule(rule: &Value) -> String {
    let (Some(list), Some(entry)) = (rule["list"].as_str(), rule["entry"].as_str()) else {
        return String::new();
    };
    let list = list.strip_prefix("network.").unwrap_or(list);
    match &rule["index"] {
        Value::Number(index) => format!("{list}[{index}]: {entry}"),
        _ => format!("{list}: {entry}"),
    }
}
