//! The `explain` command.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{
    check::platform_policy,
    cli_failure::CliFailure,
    client::ApiClient,
    config_args,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
    sandbox_file,
};
use crate::{
    api::{ExplainQuery, ExplainRequest, ExplainResponse},
    policy::{DomainOrIp, SandboxSpec},
};

/// Explain what happens to a packet, and which rule decides
///
/// Prints the verdict on a packet from a sandbox, and the line of precedence and the rule that
/// decide. The agent resolves a name or URL as its egress proxy does, and judges each address; the
/// name is allowed if one of them is. Without a port, a name is judged as on TCP ports 80 and 443.
///
/// With a file, the command does not contact the agent and resolves nothing: names are judged on
/// TCP ports 80 and 443, where the name decides. Exit status: 0 allowed, 3 denied.
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
pub(super) struct ExplainCommand {
    /// The sandbox and the destination: an IP address, a name or a URL
    #[arg(value_names = ["ID", "DEST"], num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// Read the sandbox from this file and do not contact the agent; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The protocol: tcp, udp, icmp, icmpv6, sctp, or a number
    #[arg(long, value_name = "PROTO", default_value = "tcp")]
    proto: String,
    /// The destination port; default: that of the URL
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// The requested name (Host or SNI), if DEST is an address or another name
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// With -f: the agent's configuration, for default_nameserver and platform_allow, _deny and _deny_add
    #[arg(long, value_name = "FILE", requires = "file")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

impl ExplainCommand {
    pub(super) fn run(mut self, socket: &Path) -> Result<(), CliFailure> {
        let destination = self.target.pop().unwrap_or_default();
        let request = ExplainRequest {
            sandbox_id: self.target.pop(),
            spec: None,
            destination,
            protocol: self.proto,
            port: self.port,
            host: self.host,
        };
        let query = request.to_query()?; // reject invalid input before contacting the agent
        let is_offline = self.file.is_some();
        let response = match self.file {
            Some(file) => evaluate_offline(&request, &file, self.config)?,
            None => ask_agent(&request, socket)?,
        };
        match self.output.format {
            OutputFormat::Json => output::print_json(&response)?,
            OutputFormat::Table => print_response(&response, &query, is_offline)?,
        }
        if response["allowed"] == true { Ok(()) } else { Err(CliFailure::Denied) }
    }
}

fn ask_agent(request: &ExplainRequest, socket: &Path) -> Result<Value, CliFailure> {
    if request.sandbox_id.is_none() {
        let problem = "name the sandbox and then the destination, or give a file with -f";
        return Err(CliFailure::BadInput(anyhow!(problem)));
    }
    let body = serde_json::to_vec(request)?;
    let client = ApiClient::new(socket);
    let response = block_on(client.request(Method::POST, "/agent/v1/explain", body.into()))??;
    Ok(serde_json::from_slice(&response)?)
}

fn evaluate_offline(
    request: &ExplainRequest,
    file: &Path,
    config: Option<PathBuf>,
) -> Result<Value, CliFailure> {
    let platform_policy = platform_policy(&config_args::load_config(config)?)?;
    let spec = select_sandbox(sandbox_file::read_sandboxes(file)?, request.sandbox_id.as_deref())?;
    let policy = platform_policy.policy_for_spec(&spec)?;
    let response =
        ExplainResponse::new(&policy, &platform_policy.floor, &request.to_query()?, None)?;
    Ok(serde_json::to_value(response)?)
}

fn select_sandbox(
    mut specs: Vec<SandboxSpec>,
    id: Option<&str>,
) -> Result<SandboxSpec, CliFailure> {
    if let Some(id) = id {
        specs.retain(|spec| spec.sandbox_id.as_str() == id);
    }
    match (specs.pop(), specs.is_empty(), id) {
        (Some(only), true, _) => Ok(only),
        (None, _, Some(id)) => Err(CliFailure::BadInput(anyhow!("there is no sandbox {id} in it"))),
        _ => Err(CliFailure::BadInput(anyhow!("there are several sandboxes in it: name one"))),
    }
}

fn print_response(
    response: &Value,
    query: &ExplainQuery,
    is_offline: bool,
) -> Result<(), CliFailure> {
    output::print_line(verdict_word(response))?;
    output::print_line(format_args!(
        "reason  {}: {}",
        text_field(response, "reason"),
        text_field(response, "help")
    ))?;
    output::print_line(format_args!("line    {}", response["line"]))?;
    if let Some(rule) = response.get("rule") {
        output::print_line(format_args!("rule    {}", format_rule(rule)))?;
    }
    if let Some(rule) = response.get("headerRule") {
        let names: Vec<_> = list_field(rule, "headers").filter_map(Value::as_str).collect();
        output::print_line(format_args!(
            "headers {}: {} ({})",
            text_field(rule, "key"),
            names.join(", "),
            text_field(rule, "help")
        ))?;
    }
    for address in list_field(response, "addresses") {
        output::print_line(format_args!(
            "address {}: {}",
            text_field(address, "address"),
            format_verdict(address)
        ))?;
    }
    for port in list_field(response, "byPort") {
        output::print_line(format_args!(
            "port    {}: {}",
            text_field(port, "ports"),
            format_verdict(port)
        ))?;
    }
    if let Some(note) = open_question_note(response, query, is_offline) {
        output::print_line(format_args!("note    {note}"))?;
    }
    Ok(())
}

/// A note on what the verdict does not cover.
fn open_question_note(
    response: &Value,
    query: &ExplainQuery,
    is_offline: bool,
) -> Option<&'static str> {
    match (&query.destination, query.port) {
        (DomainOrIp::Domain(_), None) if is_offline => Some(
            "on TCP ports 80 and 443; others are judged by the address, which is not looked up",
        ),
        (DomainOrIp::Domain(_), _) if is_offline => {
            Some("by the name alone: its addresses are held against the floor when it is resolved")
        }
        (DomainOrIp::Address(_), _) if response["byName"] == true && query.host.is_none() => {
            Some("the egress proxy decides by name: ask about one with --host")
        }
        _ => None,
    }
}

/// Formats a verdict as one line: `denied by deny_out (network.denyOut[0]: 0.0.0.0/0)`.
fn format_verdict(response: &Value) -> String {
    let rule = response.get("rule").map(|rule| format!(" ({})", format_rule(rule)));
    format!(
        "{} by {}{}",
        verdict_word(response),
        text_field(response, "reason"),
        rule.unwrap_or_default()
    )
}

fn verdict_word(response: &Value) -> &'static str {
    match (&response["allowed"], &response["wouldDeny"]) {
        (_, Value::Bool(true)) => "allowed, because it is observed; the policy would deny it",
        (Value::Bool(true), _) => "allowed",
        _ => "denied",
    }
}

fn text_field<'a>(response: &'a Value, field: &str) -> &'a str {
    response[field].as_str().unwrap_or_default()
}

fn list_field<'a>(response: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    response[field].as_array().into_iter().flatten()
}

/// Formats a rule as one line: `network.denyOut[0]: 0.0.0.0/0`.
pub(super) fn format_rule(rule: &Value) -> String {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    match rule.get("index") {
        Some(index) => format!("{}[{index}]: {}", text("list"), text("entry")),
        None => format!("{}: {}", text("list"), text("entry")),
    }
}
