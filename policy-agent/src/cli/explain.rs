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
    api::{Answer, Question},
    client::Client,
    policy::{SandboxSpec, explain},
};

/// Say what happens to a packet, and which rule decides
///
/// Says what happens to a packet from a sandbox, the line of precedence and the rule that decide.
/// With a file, no agent is asked. Exit status 0: allowed, 3: denied.
#[derive(Args)]
#[command(
    override_usage = "policy-agent explain [OPTIONS] <ID> <DEST>\n       \
                      policy-agent explain [OPTIONS] -f <FILE> [ID] <DEST>",
    after_help = "Examples:
  policy-agent explain web 1.1.1.1 --port 443
  policy-agent explain web 93.184.216.34 --port 443 --host example.com
  policy-agent explain -f web.json 10.0.0.1 --proto udp --port 53"
)]
pub struct Explain {
    /// The sandbox, and the IP address that the packet goes to
    #[arg(value_names = ["ID", "DEST"], num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// Take the sandbox from this file, and ask no agent; - is the standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// tcp, udp, icmp, icmpv6, sctp, or a number
    #[arg(long, value_name = "PROTO", default_value = "tcp")]
    proto: String,
    /// The port that the packet goes to
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// The name that the connection asks for (Host or SNI)
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
        question.destination()?; // wrong input is wrong whether an agent answers or not
        let answer = match self.file {
            Some(file) => offline(&question, &file, self.config)?,
            None => live(&question, socket)?,
        };
        match self.output.form {
            Form::Json => output::json(&answer)?,
            Form::Table => show(&answer, question.host.is_some())?,
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
    let answer = Answer::from(explain(&policy, &law.floor, &question.destination()?));
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

fn show(answer: &Value, asked_by_name: bool) -> Result<(), Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let verdict = if answer["allowed"] == true { "allowed" } else { "denied" };
    output::line(verdict)?;
    output::line(format_args!("reason  {}: {}", text(&answer["reason"]), text(&answer["help"])))?;
    output::line(format_args!("line    {}", answer["line"]))?;
    if let Some(rule) = answer.get("rule") {
        output::line(format_args!("rule    {}", named(rule)))?;
    }
    if answer["byName"] == true && !asked_by_name {
        output::line("note    the egress proxy decides by name: ask about one with --host")?;
    }
    Ok(())
}

/// A rule in one line: `network.denyOut[0]: 0.0.0.0/0`.
pub fn named(rule: &Value) -> String {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    match rule.get("index") {
        Some(index) => format!("{}[{index}]: {}", text("list"), text("entry")),
        None => format!("{}: {}", text("list"), text("entry")),
    }
}
