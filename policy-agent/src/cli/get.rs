//! The `get` command.

use std::{collections::BTreeMap, path::Path};

use clap::Args;
use comfy_table::{CellAlignment, Table};
use serde::Deserialize;
use serde_json::Value;

use super::{
    api_path::escape_path_segment,
    cli_failure::CliFailure,
    client::ApiClient,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};
use crate::policy::PolicyMode;

/// List sandboxes, or show one with its counters
///
/// Lists all sandboxes, or shows one: its configuration, whether its policy is enforced, and its
/// current counters by reason.
#[derive(Args)]
pub(super) struct GetCommand {
    /// The sandbox; default: all
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// The agent's report on a sandbox.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceivedReport {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    interface: String,
    netns: Option<String>,
    addresses: Vec<String>,
    mac: Option<String>,
    allow_internet_access: Option<bool>,
    network: Value,
    status: String,
    #[serde(default)]
    mode: PolicyMode,
    observe_until: Option<String>,
    #[serde(default)]
    would_deny: ReceivedCount,
    policy_id: Option<u16>,
    passed: ReceivedCount,
    denied: ReceivedCount,
    counters: BTreeMap<String, ReceivedCount>,
    proxied_connections: usize,
    events_suppressed: u64,
    events_lost: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct ReceivedCount {
    packets: u64,
    bytes: u64,
}

impl GetCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let client = ApiClient::new(socket);
        let path = match &self.id {
            Some(id) => format!("/agent/v1/sandboxes/{}", escape_path_segment(id)),
            None => "/agent/v1/sandboxes".to_owned(),
        };
        let response = block_on(client.get(&path))??;
        match (self.output.format, self.id) {
            (OutputFormat::Json, _) => {
                output::print_json(&serde_json::from_slice::<Value>(&response)?)
            }
            (OutputFormat::Table, Some(_)) => print_report(&serde_json::from_slice(&response)?),
            (OutputFormat::Table, None) => {
                print_list(&serde_json::from_slice::<Vec<ReceivedReport>>(&response)?)
            }
        }
    }
}

fn print_list(reports: &[ReceivedReport]) -> Result<(), CliFailure> {
    let mut table =
        output::new_table(["SANDBOX", "INTERFACE", "STATUS", "PASSED", "DENIED", "POLICY"]);
    for report in reports {
        table.add_row([
            report.sandbox_id.clone(),
            interface_label(report),
            status_label(report),
            report.passed.packets.to_string(),
            report.denied.packets.to_string(),
            policy_label(report),
        ]);
    }
    align_right(&mut table, [3, 4, 5]);
    output::print_table(&table)
}

fn print_report(report: &ReceivedReport) -> Result<(), CliFailure> {
    let lines = [
        ("sandbox", report.sandbox_id.clone()),
        ("interface", interface_label(report)),
        ("addresses", report.addresses.join(", ")),
        ("mac", report.mac.clone().unwrap_or_else(|| "any".to_owned())),
        ("status", status_label(report)),
        ("policy", policy_label(report)),
        ("allowInternetAccess", report.allow_internet_access.unwrap_or(true).to_string()),
        ("network", report.network.to_string()),
        ("through the proxy", format!("{} connections", report.proxied_connections)),
        ("events not shown", (report.events_suppressed + report.events_lost).to_string()),
    ];
    for (name, value) in lines {
        output::print_line(format_args!("{name:<20}{value}"))?;
    }
    output::print_line("")?;
    let mut table = output::new_table(["REASON", "PACKETS", "BYTES"]);
    for (reason, count) in &report.counters {
        table.add_row([reason.clone(), count.packets.to_string(), count.bytes.to_string()]);
    }
    let sums = [("all passed", report.passed), ("all denied", report.denied)];
    let observed = (report.mode == PolicyMode::Observe || report.would_deny.packets > 0)
        .then_some(("all observed", report.would_deny));
    for (name, count) in sums.into_iter().chain(observed) {
        table.add_row([name.to_owned(), count.packets.to_string(), count.bytes.to_string()]);
    }
    align_right(&mut table, [1, 2]);
    output::print_table(&table)
}

fn interface_label(report: &ReceivedReport) -> String {
    match &report.netns {
        Some(netns) => format!("{} in {netns}", report.interface),
        None => report.interface.clone(),
    }
}

/// The status, or that the policy is not enforced, which nobody should overlook.
fn status_label(report: &ReceivedReport) -> String {
    match (report.mode, &report.observe_until) {
        (PolicyMode::Enforce, _) => report.status.clone(),
        (PolicyMode::Observe, None) => format!("{}, OBSERVED", report.status),
        (PolicyMode::Observe, Some(until)) => format!("{}, OBSERVED until {until}", report.status),
    }
}

fn policy_label(report: &ReceivedReport) -> String {
    report.policy_id.map_or_else(|| "none".to_owned(), |policy| policy.to_string())
}

fn align_right<const N: usize>(table: &mut Table, columns: [usize; N]) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
