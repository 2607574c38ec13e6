//! `events`

use std::{
    io::{self, Write as _},
    path::Path,
};

use clap::Args;
use serde_json::Value;

use super::{
    cli_failure::CliFailure,
    client::ApiClient,
    delete::escape_path_segment,
    explain::format_rule,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};

/// Show what was denied, and with --all new flows
///
/// Shows the last denials, or with --follow those from now on. New flows that pass are reported only
/// while somebody follows with --all; `--all` without --follow shows those that were. A sandbox may
/// write some hundred events per second; `get` shows how many more there were.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent events --sandbox web
  policy-agent events --follow --all -o json | jq .destination")]
pub struct EventsCommand {
    /// Of this sandbox only
    #[arg(long, value_name = "ID")]
    sandbox: Option<String>,
    /// Go on as they happen
    #[arg(long)]
    follow: bool,
    /// New flows that pass, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl EventsCommand {
    pub fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let client = ApiClient::new(socket);
        block_on(print_stream(&client, &self.request_path(), self.output.format))??;
        if self.all && !self.follow {
            let note = "flows that pass are kept only while somebody follows: see --follow --all";
            output::print_note("note", note);
        }
        Ok(())
    }

    fn request_path(&self) -> String {
        let Self { follow, all, .. } = self;
        let mut path = format!("/agent/v1/events?follow={follow}&all={all}");
        if let Some(id) = &self.sandbox {
            path.push_str("&sandbox=");
            path.push_str(&escape_path_segment(id));
        }
        path
    }
}

async fn print_stream(
    client: &ApiClient,
    path: &str,
    form: OutputFormat,
) -> Result<(), CliFailure> {
    let mut chunks = client.stream(path).await?;
    let mut unfinished = Vec::new();
    while let Some(chunk) = chunks.next().await? {
        unfinished.extend_from_slice(&chunk);
        let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = unfinished.split_off(end + 1);
        print_lines(&unfinished, form)?;
        unfinished = rest;
    }
    Ok(())
}

fn print_lines(lines: &[u8], form: OutputFormat) -> Result<(), CliFailure> {
    let mut stdout = io::stdout().lock();
    match form {
        OutputFormat::Json => stdout.write_all(lines)?,
        OutputFormat::Table => {
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                writeln!(stdout, "{}", format_event(&serde_json::from_slice(line)?))?;
            }
        }
    }
    Ok(stdout.flush()?)
}

/// An event in one line.
fn format_event(event: &Value) -> String {
    if let Some(lost) = event.get("lost") {
        return format!("{lost} events came too fast and are lost");
    }
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let what = if event.get("protocol").is_some() { text("protocol") } else { text("ethertype") };
    let rule = event.get("rule").map(format_rule).unwrap_or_default();
    // The sandbox chose it: nothing of it may reach the terminal as it is.
    let name = event["name"].as_str().map(|name| format!("({})", name.escape_debug()));
    format!(
        "{} {} {} {} {} {} → {} {} {}",
        text("time"),
        text("sandboxID"),
        text("verdict"),
        text("reason"),
        what,
        format_address(event, "source"),
        format_address(event, "destination"),
        name.unwrap_or_default(),
        rule
    )
    .split_whitespace()
    .collect::<Vec<_>>()
    .join(" ")
}

/// An address, with its port if it has one.
fn format_address(event: &Value, field: &str) -> String {
    let Some(address) = event[field].as_str() else { return "-".to_owned() };
    match &event[format!("{field}Port").as_str()] {
        Value::Number(port) if address.contains(':') => format!("[{address}]:{port}"),
        Value::Number(port) => format!("{address}:{port}"),
        _ => address.to_owned(),
    }
}
