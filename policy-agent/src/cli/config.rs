//! The `config` command.

use clap::{Args, Subcommand};

use super::{
    cli_failure::CliFailure,
    config_args::{DataplaneArgs, LocationArgs},
    output,
};

/// Validate or print the agent's own configuration
///
/// Does not contact an agent. Accepts the flags of `run`, which override the file.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent config check --config /etc/policy-agent.toml
  policy-agent config show                  the effective configuration without a file
  policy-agent config show --defaults --config /etc/policy-agent.toml")]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    subcommand: ConfigSubcommand,
}

#[derive(Subcommand)]
enum ConfigSubcommand {
    Check(ConfigCheckCommand),
    Show(ConfigShowCommand),
}

/// Validate the configuration
///
/// Checks whether `run` would accept the configuration. Exit status: 0 valid, 2 invalid.
#[derive(Args)]
struct ConfigCheckCommand {
    #[command(flatten)]
    locations: LocationArgs,
    #[command(flatten)]
    dataplane: DataplaneArgs,
}

/// Print the effective configuration as TOML
///
/// Prints the keys that differ from their defaults, and the whole floor: the built-in list has the
/// reason for each entry. Secrets are hidden.
#[derive(Args)]
struct ConfigShowCommand {
    /// Print also the keys at their defaults, if they have a value
    #[arg(long)]
    defaults: bool,
    #[command(flatten)]
    locations: LocationArgs,
    #[command(flatten)]
    dataplane: DataplaneArgs,
}

impl ConfigCommand {
    pub(super) fn run(self) -> Result<(), CliFailure> {
        match self.subcommand {
            ConfigSubcommand::Check(check) => check.run(),
            ConfigSubcommand::Show(show) => show.run(),
        }
    }
}

impl ConfigCheckCommand {
    fn run(self) -> Result<(), CliFailure> {
        let config = self.locations.load_with_dataplane(Some(self.dataplane))?;
        config.load_api_keys().map_err(CliFailure::BadInput)?;
        let uncovered = config.uncovered_denies()?;
        if !uncovered.is_empty() {
            let uncovered = uncovered.join(", ");
            output::print_line(format_args!(
                "warning: dataplane.platform_deny replaces the built-in list and leaves open: {uncovered}; \
                 to add to the list, write platform_deny_add"
            ))?;
        }
        output::print_line("the configuration is valid")
    }
}

impl ConfigShowCommand {
    fn run(self) -> Result<(), CliFailure> {
        let config = self.locations.load_with_dataplane(Some(self.dataplane))?;
        output::print_line(config.to_redacted_toml(self.defaults)?.trim_end())
    }
}
