//! The `flows` command.

use std::path::Path;

use clap::Args;

use super::{
    cli_failure::CliFailure,
    flow_output::{FlowColumns, FlowFilterArgs},
    output,
};

/// Show what sandboxes reached and what they were denied
///
/// Shows destinations, aggregated, the ones seen last first. Connections through the egress proxy are
/// always recorded, with their names. Flows that the kernel lets pass by address are recorded while a
/// client runs `flows --follow` or `events --follow --all`, because their reports cost the packet path
/// time.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent flows web --since 1d
  policy-agent flows web --name '*.example.com'
  policy-agent flows --follow -o json")]
pub(super) struct FlowsCommand {
    /// The sandbox; default: all
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    filter: FlowFilterArgs,
}

impl FlowsCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let is_following = self.filter.follow;
        self.filter.print(socket, self.id.as_deref(), FlowColumns::Flows)?;
        if !is_following {
            let note = "flows that pass by address are recorded only while somebody follows: see \
                        --follow";
            output::print_note("note", note);
        }
        Ok(())
    }
}
