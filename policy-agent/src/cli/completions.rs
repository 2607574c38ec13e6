//! The `completions` command.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{CliArgs, cli_failure::CliFailure};

/// Print completions for a shell
///
/// Packages install them. Otherwise, write them to where the shell looks for completions.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent completions bash > /usr/share/bash-completion/completions/policy-agent
  policy-agent completions zsh > /usr/share/zsh/vendor-completions/_policy-agent
  policy-agent completions fish > /usr/share/fish/vendor_completions.d/policy-agent.fish")]
pub(super) struct CompletionsCommand {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsCommand {
    pub(super) fn run(self) -> Result<(), CliFailure> {
        // `generate` panics if it cannot write.
        let mut text = Vec::new();
        let mut command = CliArgs::command();
        let name = command.get_name().to_owned();
        generate(self.shell, &mut command, name, &mut text);
        Ok(io::stdout().lock().write_all(&text)?)
    }
}
