//! Output of the record of flows, for `denials` and `flows`.

use std::path::Path;

use clap::Args;
use comfy_table::CellAlignment;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    api_path::{append_parameters, escape_path_segment},
    cli_failure::CliFailure,
    client::ApiClient,
    events::{format_host_port, print_json_lines},
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};

/// Which part of the record to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowColumns {
    /// What was denied, with what would allow it.
    Denials,
    /// Everything, with the decision.
    Flows,
}

/// Selects entries of the record.
#[derive(Args)]
pub(super) struct FlowFilterArgs {
    /// Show what was seen from this time on: how long ago, like 1h30m or 2d, or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show entries with this reason only
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Show this name only, or the names that match a wildcard
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Show only this many entries, the ones seen last; default: all of one sandbox, 1000 of all
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Print entries again whenever they change
    #[arg(long)]
    pub(super) follow: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl FlowFilterArgs {
    /// Prints the entries of one sandbox or of all.
    pub(super) fn print(
        &self,
        socket: &Path,
        id: Option<&str>,
        columns: FlowColumns,
    ) -> Result<(), CliFailure> {
        let client = ApiClient::new(socket);
        let path = self.request_path(id, columns);
        let format = self.output.format;
        if self.follow {
            let format_line = match columns {
                FlowColumns::Denials => format_denial,
                FlowColumns::Flows => format_flow,
            };
            return block_on(print_json_lines(&client, &path, format, format_line))?;
        }
        let list: Value = serde_json::from_slice(&block_on(client.get(&path))??)?;
        match format {
            OutputFormat::Json => output::print_json(&list["entries"])?,
            OutputFormat::Table => print_entries(&list, id.is_none(), columns)?,
        }
        if let Some(lost) = list["lost"].as_u64().filter(|lost| *lost > 0) {
            let note = format!(
                "{lost} packets came too fast and are not in these counts; `get` has \
                                all denied packets"
            );
            output::print_note("note", note);
        }
        Ok(())
    }

    fn request_path(&self, id: Option<&str>, columns: FlowColumns) -> String {
        let what = match columns {
            FlowColumns::Denials => "denials",
            FlowColumns::Flows => "flows",
        };
        let mut path = match id {
            Some(id) => format!("/agent/v1/sandboxes/{}/{what}", escape_path_segment(id)),
            None => format!("/agent/v1/{what}"),
        };
        path.push_str(&format!("?follow={}", self.follow));
        let last = self.last.map(|last| last.to_string());
        let parameters = [
            ("since", self.since.as_deref()),
            ("reason", self.reason.as_deref()),
            ("name", self.name.as_deref()),
            ("last", last.as_deref()),
        ];
        append_parameters(&mut path, &parameters);
        path
    }
}

fn print_entries(list: &Value, of_all: bool, columns: FlowColumns) -> Result<(), CliFailure> {
    let now = Timestamp::now();
    let (fourth, last) = match columns {
        FlowColumns::Denials => ("REASON", "ALLOW WITH"),
        FlowColumns::Flows => ("DECISION", "REASON"),
    };
    let mut table = output::new_table(["COUNT", "LAST", "SANDBOX", "WHAT", fourth, last]);
    for entry in list["entries"].as_array().into_iter().flatten() {
        let (fourth, last) = match columns {
            FlowColumns::Denials => (format_reason(entry), text(entry, "allowWith")),
            FlowColumns::Flows => (text(entry, "decision").to_owned(), text(entry, "reason")),
        };
        table.add_row([
            count(entry).to_string(),
            age(entry, now),
            text(entry, "sandboxID").to_owned(),
            format_destination(entry),
            fourth,
            last.to_owned(),
        ]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    if let Some(column) = table.column_mut(2).filter(|_| !of_all) {
        column.set_constraint(comfy_table::ColumnConstraint::Hidden);
    }
    output::print_table(&table)
}

/// Formats an entry of a followed record as one line.
fn format_denial(entry: &Value) -> String {
    let advice = entry["allowWith"].as_str().map(|advice| format!(" → {advice}"));
    format!(
        "{} {} {}× {} {}{}",
        text(entry, "lastSeen"),
        text(entry, "sandboxID"),
        count(entry),
        format_destination(entry),
        format_reason(entry),
        advice.unwrap_or_default()
    )
}

/// The same with the decision in place of what would allow it.
fn format_flow(entry: &Value) -> String {
    format!(
        "{} {} {}× {} {} {}",
        text(entry, "lastSeen"),
        text(entry, "sandboxID"),
        count(entry),
        format_destination(entry),
        text(entry, "decision"),
        text(entry, "reason")
    )
}

/// The reason, and whether it was only observed.
fn format_reason(entry: &Value) -> String {
    let reason = text(entry, "reason");
    match text(entry, "decision") {
        "would_deny" => format!("{reason} (would deny)"),
        _ => reason.to_owned(),
    }
}

/// Formats what was asked for: `tcp example.com:443`.
pub(super) fn format_destination(entry: &Value) -> String {
    if let Some(merged) = entry["merged"].as_u64().filter(|merged| *merged > 0) {
        return format!("{merged} rarer destinations");
    }
    // The sandbox chose the name: escape it for the terminal.
    let name = entry["name"].as_str().map(|name| name.escape_debug().to_string());
    let host = name.or_else(|| entry["address"].as_str().map(str::to_owned));
    let host = host.map(|host| format_host_port(&host, &entry["port"])).unwrap_or_default();
    let direction = if entry["inbound"] == true { "from " } else { "" };
    format!("{} {direction}{host}", text(entry, "protocol")).trim().to_owned()
}

pub(super) fn count(entry: &Value) -> u64 {
    let number = |field: &str| entry[field].as_u64().unwrap_or_default();
    if number("connections") > 0 { number("connections") } else { number("packets") }
}

/// How long ago an entry was last seen, in its largest unit.
fn age(entry: &Value, now: Timestamp) -> String {
    let Ok(last_seen) = text(entry, "lastSeen").parse::<Timestamp>() else {
        return "-".to_owned();
    };
    match now.duration_since(last_seen).as_secs().max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_destination_is_what_was_asked_for() {
        for (entry, shown) in [
            (
                json!({ "protocol": "tcp", "name": "a.example", "address": "192.0.2.1", "port": 443 }),
                "tcp a.example:443",
            ),
            (json!({ "protocol": "udp", "address": "192.0.2.1", "port": 53 }), "udp 192.0.2.1:53"),
            (
                json!({ "protocol": "udp", "address": "2001:db8::1", "port": 53 }),
                "udp [2001:db8::1]:53",
            ),
            (json!({ "protocol": "icmp", "address": "192.0.2.1" }), "icmp 192.0.2.1"),
            (
                json!({ "protocol": "tcp", "address": "192.0.2.1", "port": 22, "inbound": true }),
                "tcp from 192.0.2.1:22",
            ),
            (json!({ "merged": 12 }), "12 rarer destinations"),
            (json!({ "protocol": "0x88cc" }), "0x88cc"),
            (json!({ "protocol": "tcp", "name": "\u{1b}[31m", "port": 80 }), "tcp \\u{1b}[31m:80"),
        ] {
            assert_eq!(format_destination(&entry), shown, "{entry}");
        }
    }

    #[test]
    fn an_age_has_one_unit() {
        let now: Timestamp = "2026-11-29T08:00:00Z".parse().expect("a time");
        for (last_seen, shown) in [
            ("2026-11-29T07:59:57Z", "3s"),
            ("2026-11-29T08:00:05Z", "0s"),
            ("2026-11-29T07:55:00Z", "5m"),
            ("2026-11-29T04:00:00Z", "4h"),
            ("2026-11-26T08:00:00Z", "3d"),
            ("?", "-"),
        ] {
            assert_eq!(age(&json!({ "lastSeen": last_seen }), now), shown, "{last_seen}");
        }
    }
}
