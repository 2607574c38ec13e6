//! The `events` command.

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

/// Show denials and, with --all, new flows
///
/// Shows the most recent denials or, with --follow, new ones. The kernel reports new allowed flows
/// only while a client runs `--follow --all`; `--all` without --follow shows those that were
/// reported. A sandbox may cause a few hundred events per second; `get` shows how many were not
/// reported.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent events --sandbox web
  policy-agent events --follow --all -o json | jq .destination")]
pub(super) struct EventsCommand {
    /// Show events of this sandbox only
    #[arg(long, value_name = "ID")]
    sandbox: Option<String>,
    /// Print new events as they happen
    #[arg(long)]
    follow: bool,
    /// Include new allowed flows
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl EventsCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
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
    format: OutputFormat,
) -> Result<(), CliFailure> {
    let mut chunks = client.stream(path).await?;
    let mut pending = Vec::new();
    while let Some(chunk) = chunks.next().await? {
        pending.extend_from_slice(&chunk);
        let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = pending.split_off(end + 1);
        print_lines(&pending, format)?;
        pending = rest;
    }
    Ok(())
}

fn print_lines(lines: &[u8], format: OutputFormat) -> Result<(), CliFailure> {
    let mut stdout = io::stdout().lock();
    match format {
        OutputFormat::Json => stdout.write_all(lines)?,
        OutputFormat::Table => {
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                writeln!(stdout, "{}", format_event(&serde_json::from_slice(line)?))?;
            }
        }
    }
    Ok(stdout.flush()?)
}

/// Formats an event as one line.
fn format_event(event: &Value) -> String {
    if let Some(lost) = event.get("lost") {
        return format!("{lost} events came too fast and are lost");
    }
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let what = if event.get("protocol").is_some() { text("protocol") } else { text("ethertype") };
    let rule = event.get("rule").map(format_rule).unwrap_or_default();
    // The sandbox chose the name: escape it for the terminal.
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

/// Formats an address, with its port if there is one.
fn format_address(event: &Value, field: &str) -> String {
    let Some(address) = event[field].as_str() else { return "-".to_owned() };
    match &event[format!("{field}Port").as_str()] {
        Value::Number(port) if address.contains(':') => format!("[{address}]:{port}"),
        Value::Number(port) => format!("{address}:{port}"),
        _ => address.to_owned(),
    }
}
