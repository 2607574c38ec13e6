//! The `denials` command.

use std::path::Path;

use clap::Args;

use super::{
    cli_failure::CliFailure,
    flow_output::{FlowColumns, FlowFilterArgs},
};

/// Show what was denied, and what would allow it
///
/// Shows the destinations that sandboxes were denied, aggregated, the ones seen last first: by the
/// kernel, and by the egress proxy by name. The agent keeps them over restarts, within a bound per
/// sandbox; rare destinations that do not fit are counted together.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent denials web --since 1h
  policy-agent denials --reason name_not_allowed
  policy-agent denials web --follow -o json | jq -r .allowEntry")]
pub(super) struct DenialsCommand {
    /// The sandbox; default: all
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    filter: FlowFilterArgs,
}

impl DenialsCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        self.filter.print(socket, self.id.as_deref(), FlowColumns::Denials)
    }
}
