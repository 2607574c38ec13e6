//! The `observe` command.

use std::path::Path;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{
    api_path::escape_path_segment,
    cli_failure::CliFailure,
    client::ApiClient,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};
use crate::{api::ModeRequest, policy::PolicyMode};

/// Let pass what the policy of a sandbox denies, and record it
///
/// What denyOut, allowInternetAccess and missing names would deny passes, and is recorded as
/// would_deny: `denials` and `suggest` show it. The operator's floor is enforced, and so is everything
/// about public URLs. The mode outlives updates by the SDK and restarts of the agent. It ends with --end,
/// after the time of --for, and with the next `apply` of a file without \"mode\": \"observe\".
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent observe web --for 1h
  policy-agent suggest web
  policy-agent observe web --end")]
pub(super) struct ObserveCommand {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// Enforce the policy again after this time, like 30m, 1h or 7d
    #[arg(long = "for", value_name = "TIME", conflicts_with = "end")]
    duration: Option<String>,
    /// Enforce the policy again
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl ObserveCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let Self { id, duration, end, output } = self;
        let mode = if end { PolicyMode::Enforce } else { PolicyMode::Observe };
        let path = format!("/agent/v1/sandboxes/{}/mode", escape_path_segment(&id));
        let body = serde_json::to_vec(&ModeRequest { mode, duration })?;
        let response = block_on(ApiClient::new(socket).request(Method::POST, &path, body.into()))??;
        let answer: Value = serde_json::from_slice(&response)?;
        match (output.format, mode) {
            (OutputFormat::Json, _) => output::print_json(&answer),
            (_, PolicyMode::Enforce) => output::print_line(format_args!("{id} enforced")),
            (_, PolicyMode::Observe) => {
                output::print_line(format_args!("{id} observed{}", until_label(&answer)))
            }
        }
    }
}

/// Until when a sandbox is observed: ` until 2026-11-29T12:00:00Z`.
pub(super) fn until_label(fields: &Value) -> String {
    let until = fields["observeUntil"].as_str();
    until.map(|until| format!(" until {until}")).unwrap_or_default()
}
