//! The `import` command.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{cli_failure::CliFailure, output, sandbox_file::read_text};
use crate::policy::{ImportFormat, ImportedPolicy};

/// Convert another tool's allow-list to a policy
///
/// Prints the network configuration of a sandbox, for its file. Notes on stderr say what was not carried
/// over, and what means something else here. Needs no agent and changes nothing.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent import hosts runner-hosts.txt
  policy-agent import no-proxy - <<< \"$NO_PROXY\"
  policy-agent import srt ~/.srt-settings.json
  policy-agent import docker network.sh
  nft -j list ruleset | policy-agent import nft - --deny-set blocked")]
pub(super) struct ImportCommand {
    /// What the file holds
    #[arg(value_name = "FORMAT")]
    format: FormatArg,
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// nft: a set whose elements are denied; those of other sets are allowed
    #[arg(long = "deny-set", value_name = "SET")]
    deny_sets: Vec<String>,
}

/// The formats.
#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    /// Hosts with or without ports, addresses, CIDRs and URLs, as CI runners list theirs
    Hosts,
    /// The value of NO_PROXY, where a name stands for itself and all below it
    NoProxy,
    /// The settings of Anthropic's sandbox runtime, .srt-settings.json
    Srt,
    /// Commands like docker sandbox network proxy web --policy deny --allow-host example.com
    Docker,
    /// Sets of nftables, as nft -j list ruleset prints them
    Nft,
}

impl ImportCommand {
    pub(super) fn run(self) -> Result<(), CliFailure> {
        let format = self.format.into();
        if !self.deny_sets.is_empty() && format != ImportFormat::Nft {
            let problem = anyhow!("--deny-set: only nft has sets; leave it out");
            return Err(CliFailure::BadInput(problem));
        }
        let text = read_text(&self.file).map_err(CliFailure::BadInput)?;
        let imported = ImportedPolicy::read(format, &text, &self.deny_sets)
            .map_err(|error| CliFailure::BadInput(anyhow!("{}: {error}", self.file.display())))?;
        let ImportedPolicy { allow_out, deny_out, notes, .. } = imported;
        output::print_json(&json!({"network": {"allowOut": allow_out, "denyOut": deny_out}}))?;
        for note in notes {
            output::print_note("note", &note);
        }
        Ok(())
    }
}

impl From<FormatArg> for ImportFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Hosts => Self::HostList,
            FormatArg::NoProxy => Self::NoProxy,
            FormatArg::Srt => Self::Srt,
            FormatArg::Docker => Self::Docker,
            FormatArg::Nft => Self::Nft,
        }
    }
}
