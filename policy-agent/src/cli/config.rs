//! `config`

use clap::{Args, Subcommand};

use super::{
    failure::Failure,
    options::{Dataplane, Places},
    output,
};

/// Validate or print the agent's own configuration
///
/// Asks no agent. Takes the flags of `run`, which override the file.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent config check --config /etc/policy-agent.toml
  policy-agent config show                  what holds without a file: the floor
  policy-agent config show --defaults --config /etc/policy-agent.toml")]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Check(Check),
    Show(Show),
}

/// Say whether `run` would accept it
///
/// Says whether `run` would accept it. Exit status 0: yes, 2: no.
#[derive(Args)]
struct Check {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    dataplane: Dataplane,
}

/// Print what holds, as TOML
///
/// Prints what holds, as TOML: the keys that are not at their defaults, and the whole floor, the
/// built-in list with the reason for each entry. Secrets are not shown.
#[derive(Args)]
struct Show {
    /// Print every key, also those at their defaults
    #[arg(long)]
    defaults: bool,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    dataplane: Dataplane,
}

impl Config {
    pub fn run(self) -> Result<(), Failure> {
        match self.verb {
            Verb::Check(check) => check.run(),
            Verb::Show(show) => show.run(),
        }
    }
}

impl Check {
    fn run(self) -> Result<(), Failure> {
        let config = self.places.load_with(Some(self.dataplane))?;
        let open = config.left_open()?;
        if !open.is_empty() {
            let open = open.join(", ");
            output::line(format_args!(
                "warning: dataplane.platform_deny replaces the built-in list and leaves open: {open}; \
                 to add to the list, write platform_deny_add"
            ))?;
        }
        output::line("the configuration is valid")
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let config = self.places.load_with(Some(self.dataplane))?;
        output::line(config.show(self.defaults)?.trim_end())
    }
}
