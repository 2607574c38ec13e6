//! The `deny` command.

use std::path::Path;

use clap::Args;

use super::{cli_failure::CliFailure, list_edit_args::ListEditArgs};

/// Add entries to denyOut of a sandbox, or remove some
///
/// Changes one list of the policy in force, and keeps everything else. When the command succeeds, the
/// kernel enforces the change. allowOut precedes denyOut: an entry that allowOut allows is refused. The
/// next `apply` of the sandbox replaces the list.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent deny web 203.0.113.0/24
  policy-agent deny web 0.0.0.0/0 --for 10m
  policy-agent deny web 203.0.113.0/24 --remove")]
pub(super) struct DenyCommand {
    #[command(flatten)]
    edit: ListEditArgs,
}

impl DenyCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        self.edit.run(socket, "deny")
    }
}
