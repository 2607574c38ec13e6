//! The command line: one file per command, all of them thin.

mod apply;
mod check;
mod cleanup;
mod config;
mod delete;
mod doctor;
mod events;
mod explain;
mod failure;
mod file;
mod get;
mod lock;
mod options;
mod output;
mod run;
mod signals;
mod url;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::failure::Failure;

/// Decides what sandboxes may reach on the network, and lets the kernel enforce it.
#[derive(Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    /// The agent's Unix socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "POLICY_AGENT_SOCKET",
        default_value = "/run/policy-agent/agent.sock"
    )]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  policy-agent doctor                       is everything there that the agent needs?
  policy-agent run                          the agent; leaves the kernel enforcing when it stops
  policy-agent config show                  what no sandbox may reach, whatever its policy says
  policy-agent check -f web.json            is this configuration right? (asks no agent)
  policy-agent apply -f web.json            from now on the kernel enforces it
  policy-agent explain web 1.1.1.1 --port 443
  policy-agent events --sandbox web --follow
  policy-agent url web 3000                 where is its port 3000 to be reached?

web.json:
  {\"sandboxID\": \"web\", \"interface\": \"tap0\", \"addresses\": [\"10.11.0.2\"],
   \"network\": {\"allowOut\": [\"1.1.1.1\", \"8.8.8.0/24\"], \"denyOut\": [\"0.0.0.0/0\"]}}

Exit status: 0 done, 1 failed, 2 bad usage or configuration; explain: 0 allowed, 3 denied.";

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Apply(apply::Apply),
    Get(get::Get),
    Delete(delete::Delete),
    Check(check::Check),
    Config(config::Config),
    Explain(explain::Explain),
    Events(events::Events),
    Url(url::Url),
    Doctor(doctor::Doctor),
    Cleanup(cleanup::Cleanup),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { socket, command } = Cli::parse();
    let done = match command {
        Command::Run(command) => command.run(&socket),
        Command::Apply(command) => command.run(&socket),
        Command::Get(command) => command.run(&socket),
        Command::Delete(command) => command.run(&socket),
        Command::Check(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Explain(command) => command.run(&socket),
        Command::Events(command) => command.run(&socket),
        Command::Url(command) => command.run(&socket),
        Command::Doctor(command) => command.run(&socket),
        Command::Cleanup(command) => command.run(&socket),
    };
    done.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
