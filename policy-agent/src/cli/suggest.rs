//! The `suggest` command.

use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::{
    api_path::escape_path_segment, cli_failure::CliFailure, client::ApiClient, output,
    runtime::block_on,
};

/// Suggest a policy that allows what a sandbox was seen to ask for
///
/// Prints the sandbox with the smallest sensible lists, for `apply`: names where names were seen (a
/// wildcard from three siblings on), networks where addresses crowd, and otherwise addresses. All else is
/// denied. Takes the record: what passed, and what the sandbox's own lists denied. Changes nothing. Notes
/// on stderr say what to look at.
#[derive(Args)]
#[command(after_help = "Example:
  policy-agent suggest web > web.json && policy-agent apply -f web.json --diff --dry-run")]
pub(super) struct SuggestCommand {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
}

impl SuggestCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let client = ApiClient::new(socket);
        let path = format!("/agent/v1/sandboxes/{}/suggestion", escape_path_segment(&self.id));
        let suggestion: Value = serde_json::from_slice(&block_on(client.get(&path))??)?;
        output::print_json(&suggestion["sandbox"])?;
        for note in suggestion["notes"].as_array().into_iter().flatten() {
            output::print_note("note", note.as_str().unwrap_or_default());
        }
        Ok(())
    }
}
