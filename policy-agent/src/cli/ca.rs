//! The `ca` command.

use std::path::Path;

use clap::Args;

use super::{
    api_path::escape_path_segment, cli_failure::CliFailure, client::ApiClient, output,
    runtime::block_on,
};

/// Print the certificate authority that a sandbox with network.rules has to trust
///
/// The agent presents certificates of this authority for names with a rule. Inside the sandbox it is
/// also at http://policy.internal/ca.pem. docs/rules.md lists how programs are told to trust it.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent ca web > web-ca.pem
  policy-agent ca web | ssh sandbox 'cat > /usr/local/share/ca-certificates/agent.crt \\
    && update-ca-certificates'")]
pub(super) struct CaCommand {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
}

impl CaCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let path = format!("/agent/v1/sandboxes/{}/ca", escape_path_segment(&self.id));
        let pem = block_on(ApiClient::new(socket).get(&path))??;
        output::print_line(String::from_utf8_lossy(&pem).trim_end())
    }
}
