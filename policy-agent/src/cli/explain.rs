//! `explain`

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{
    check::law,
    failure::Failure,
    file, options,
    output::{self, Form, Output},
    run::block_on,
};
use crate::{
    api::{Answer, Asked, Question},
    client::Client,
    policy::{Host, SandboxSpec},
};

/// Say what happens to a packet, and which rule decides
///
/// Says what happens to a packet from a sandbox, the line of precedence and the rule that decide. A
/// name or URL is resolved by the agent as its egress proxy would, and each address is judged; it is
/// allowed if one of them is. Without a port, a name is judged as on TCP ports 80 and 443.
///
/// With a file, no agent is asked and nothing is resolved: names are judged on TCP ports 80 and 443,
/// where the name decides. Exit status 0: allowed, 3: denied.
#[derive(Args)]
#[command(
    override_usage = "policy-agent explain [OPTIONS] <ID> <DEST>\n       \
                      policy-agent explain [OPTIONS] -f <FILE> [ID] <DEST>",
    after_help = "Examples:
  policy-agent explain web https://api.example.com/x
  policy-agent explain web example.com
  policy-agent explain web 1.1.1.1 --port 443
  policy-agent explain web 93.184.216.34 --port 443 --host example.com
  policy-agent explain -f web.json 10.0.0.1 --proto udp --port 53"
)]
pub struct Explain {
    /// The sandbox, and where the packet goes: an IP address, a name or a URL
    #[arg(value_names = ["ID", "DEST"], num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// Take the sandbox from this file, and ask no agent; - is the standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// tcp, udp, icmp, icmpv6, sctp, or a number
    #[arg(long, value_name = "PROTO", default_value = "tcp")]
    proto: String,
    /// The port that the packet goes to; a URL says its own
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// The name that the connection asks for (Host or SNI), where DEST is an address or another name
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// With -f: the agent's configuration, for platform_allow and platform_deny
    #[arg(long, value_name = "FILE", requires = "file")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Explain {
    pub fn run(mut self, socket: &Path) -> Result<(), Failure> {
        let destination = self.target.pop().unwrap_or_default();
        let question = Question {
            sandbox_id: self.target.pop(),
            spec: None,
            destination,
            protocol: self.proto,
            port: self.port,
            host: self.host,
        };
        let asked = question.asked()?; // wrong input is wrong whether an agent answers or not
        let is_offline = self.file.is_some();
        let answer = match self.file {
            Some(file) => offline(&question, &file, self.config)?,
            None => live(&question, socket)?,
        };
        match self.output.form {
            Form::Json => output::json(&answer)?,
            Form::Table => show(&answer, &asked, is_offline)?,
        }
        if answer["allowed"] == true { Ok(()) } else { Err(Failure::Denied) }
    }
}

fn live(question: &Question, socket: &Path) -> Result<Value, Failure> {
    if question.sandbox_id.is_none() {
        let problem = "name the sandbox and then the destination, or give a file with -f";
        return Err(Failure::BadInput(anyhow!(problem)));
    }
    let body = serde_json::to_vec(question)?;
    let client = Client::new(socket);
    let answer = block_on(client.whole(Method::POST, "/agent/v1/explain", body.into()))??;
    Ok(serde_json::from_slice(&answer)?)
}

fn offline(question: &Question, file: &Path, config: Option<PathBuf>) -> Result<Value, Failure> {
    let law = law(&options::load(config)?)?;
    let spec = choose(file::sandboxes(file)?, question.sandbox_id.as_deref())?;
    let policy = law.judge(&spec)?;
    let answer = Answer::new(&policy, &law.floor, &question.asked()?, None)?;
    Ok(serde_json::to_value(answer)?)
}

fn choose(mut specs: Vec<SandboxSpec>, id: Option<&str>) -> Result<SandboxSpec, Failure> {
    if let Some(id) = id {
        specs.retain(|spec| spec.sandbox_id.as_str() == id);
    }
    match (specs.pop(), specs.is_empty(), id) {
        (Some(only), true, _) => Ok(only),
        (None, _, Some(id)) => Err(Failure::BadInput(anyhow!("there is no sandbox {id} in it"))),
        _ => Err(Failure::BadInput(anyhow!("there are several sandboxes in it: name one"))),
    }
}

fn show(answer: &Value, asked: &Asked, is_offline: bool) -> Result<(), Failure> {
    output::line(word(answer))?;
    output::line(format_args!("reason  {}: {}", text(answer, "reason"), text(answer, "help")))?;
    output::line(format_args!("line    {}", answer["line"]))?;
    if let Some(rule) = answer.get("rule") {
        output::line(format_args!("rule    {}", named(rule)))?;
    }
    for address in list(answer, "addresses") {
        output::line(format_args!("address {}: {}", text(address, "address"), verdict(address)))?;
    }
    for on in list(answer, "byPort") {
        output::line(format_args!("port    {}: {}", text(on, "ports"), verdict(on)))?;
    }
    if let Some(note) = note(answer, asked, is_offline) {
        output::line(format_args!("note    {note}"))?;
    }
    Ok(())
}

/// What the answer leaves open.
fn note(answer: &Value, asked: &Asked, is_offline: bool) -> Option<&'static str> {
    match (&asked.to, asked.port) {
        (Host::Name(_), None) if is_offline => Some(
            "on TCP ports 80 and 443; others are judged by the address, which is not looked up",
        ),
        (Host::Name(_), _) if is_offline => {
            Some("by the name alone: its addresses are held against the floor when it is resolved")
        }
        (Host::Address(_), _) if answer["byName"] == true && asked.host.is_none() => {
            Some("the egress proxy decides by name: ask about one with --host")
        }
        _ => None,
    }
}

/// A verdict in one line: `denied by deny_out (network.denyOut[0]: 0.0.0.0/0)`.
fn verdict(answer: &Value) -> String {
    let rule = answer.get("rule").map(|rule| format!(" ({})", named(rule)));
    format!("{} by {}{}", word(answer), text(answer, "reason"), rule.unwrap_or_default())
}

fn word(answer: &Value) -> &'static str {
    if answer["allowed"] == true { "allowed" } else { "denied" }
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

fn list<'a>(answer: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    answer[field].as_array().into_iter().flatten()
}

/// A rule in one line: `network.denyOut[0]: 0.0.0.0/0`.
pub fn named(rule: &Value) -> String {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    match rule.get("index") {
        Some(index) => format!("{}[{index}]: {}", text("list"), text("entry")),
        None => format!("{}: {}", text("list"), text("entry")),
    }
}
