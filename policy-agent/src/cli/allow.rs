//! The `allow` command.

use std::path::Path;

use clap::Args;

use super::{cli_failure::CliFailure, list_edit_args::ListEditArgs};

/// Add entries to allowOut of a sandbox, or remove some
///
/// Changes one list of the policy in force, and keeps everything else. When the command succeeds, the
/// kernel enforces the change. An entry that the operator's floor denies is refused. The next `apply`
/// of the sandbox replaces the list.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent allow web registry.example.com '*.cdn.example.com'
  policy-agent allow web 203.0.113.0/24 --for 1h
  policy-agent allow web registry.example.com --remove")]
pub(super) struct AllowCommand {
    #[command(flatten)]
    edit: ListEditArgs,
}

impl AllowCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        self.edit.run(socket, "allow")
    }
}
