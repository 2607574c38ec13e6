//! The `events` command.

use std::{
    io::{self, Write as _},
    path::Path,
};

use clap::Args;
use serde_json::Value;

use super::{
    api_path::append_parameters,
    cli_failure::CliFailure,
    client::ApiClient,
    explain::format_rule,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};
use crate::net::unix_http::split_lines;

/// Show denials and, with --all, new flows
///
/// Shows the most recent denials one by one, as many as the agent buffers, or, with --follow, new
/// ones. `denials` shows them by destination, with what would allow them. The kernel reports new allowed flows
/// only while a client runs `--follow --all`; `--all` without --follow shows those that were
/// reported. A sandbox may cause a few hundred events per second; `get` shows how many were not
/// reported.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent events --sandbox web --since 10m
  policy-agent events --reason name_not_allowed --last 20
  policy-agent events --follow --all -o json | jq .destination")]
pub(super) struct EventsCommand {
    /// Show events of this sandbox only
    #[arg(long, value_name = "ID")]
    sandbox: Option<String>,
    /// Show events with this reason only; those that pass are shown as well
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Show events from this time on: how long ago, like 1h30m or 2d, or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show only this many of the most recent events
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Print new events as they happen; with --since or --last, after the earlier ones
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
        let (path, format) = (self.request_path(), self.output.format);
        block_on(print_json_lines(&client, &path, format, format_event))??;
        if self.all && !self.follow {
            let note = "flows that pass are kept only while somebody follows: see --follow --all";
            output::print_note("note", note);
        }
        Ok(())
    }

    fn request_path(&self) -> String {
        let Self { follow, all, .. } = self;
        let mut path = format!("/agent/v1/events?follow={follow}&all={all}");
        let last = self.last.map(|last| last.to_string());
        let parameters = [
            ("sandbox", self.sandbox.as_deref()),
            ("reason", self.reason.as_deref()),
            ("since", self.since.as_deref()),
            ("last", last.as_deref()),
        ];
        append_parameters(&mut path, &parameters);
        path
    }
}

/// Prints the JSON lines at a path as they arrive: as they are, or formatted.
pub(super) async fn print_json_lines(
    client: &ApiClient,
    path: &str,
    format: OutputFormat,
    format_line: fn(&Value) -> String,
) -> Result<(), CliFailure> {
    let mut body = client.stream_lines(path).await?;
    while let Some(lines) = body.next().await? {
        print_lines(&lines, format, format_line)?;
    }
    Ok(())
}

fn print_lines(
    lines: &[u8],
    format: OutputFormat,
    format_line: fn(&Value) -> String,
) -> Result<(), CliFailure> {
    let mut stdout = io::stdout().lock();
    match format {
        OutputFormat::Json => stdout.write_all(lines)?,
        OutputFormat::Table => {
            for line in split_lines(lines) {
                writeln!(stdout, "{}", format_line(&serde_json::from_slice(line)?))?;
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
    format_host_port(address, &event[format!("{field}Port").as_str()])
}

/// Formats an address or a name, with its port if there is one.
pub(super) fn format_host_port(host: &str, port: &Value) -> String {
    match port {
        Value::Number(port) if host.contains(':') => format!("[{host}]:{port}"),
        Value::Number(port) => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}
