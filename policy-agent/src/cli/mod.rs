//! The command line. Each command is a small module.

mod allow;
mod api_path;
mod apply;
mod bugreport;
mod ca;
mod check;
mod cleanup;
mod cli_failure;
mod client;
mod cni;
mod completions;
mod config;
mod config_args;
mod container_args;
mod container_id;
mod container_policy;
mod delete;
mod denials;
mod deny;
mod doctor;
mod events;
mod explain;
mod flow_output;
mod flows;
mod get;
mod import;
mod install_plugin;
mod list_edit_args;
mod man;
mod observe;
mod oci_hook;
mod output;
mod run;
mod runtime;
mod sandbox_file;
mod secrets;
mod suggest;
mod top;
mod url;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::cli_failure::CliFailure;
use crate::build_info::version_line;

/// Control what sandboxes may reach on the network, enforced in the kernel
#[derive(Parser)]
#[command(version = version_line(), propagate_version = true, after_help = EXAMPLES)]
struct CliArgs {
    /// Path of the agent's Unix socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "POLICY_AGENT_SOCKET",
        default_value = "/run/policy-agent/agent.sock"
    )]
    socket: PathBuf,
    #[command(subcommand)]
    command: CliCommand,
}

const EXAMPLES: &str = "\
Examples:
  policy-agent doctor                       check that this machine meets the agent's requirements
  policy-agent run                          run the agent; the kernel keeps enforcing when it stops
  policy-agent config show                  show the floor: what no sandbox may reach
  policy-agent check -f web.json            validate a file without an agent
  policy-agent apply -f web.json            enforce the policies in a file
  policy-agent explain web 1.1.1.1 --port 443
  policy-agent top                          watch what all sandboxes do
  policy-agent denials web --since 1h       show what was denied, and what would allow it
  policy-agent allow web api.example.com    allow what a denial says, at once
  policy-agent events --sandbox web --follow
  policy-agent url web 3000                 print the public URL of port 3000

web.json:
  {\"sandboxID\": \"web\", \"interface\": \"tap0\", \"addresses\": [\"10.11.0.2\"],
   \"network\": {\"allowOut\": [\"1.1.1.1\", \"8.8.8.0/24\"], \"denyOut\": [\"0.0.0.0/0\"]}}

Exit status: 0 success, 1 failure, 2 invalid usage or input; explain: 0 allowed, 3 denied.";

#[derive(Subcommand)]
enum CliCommand {
    Run(run::RunCommand),
    Apply(apply::ApplyCommand),
    Get(get::GetCommand),
    Allow(allow::AllowCommand),
    Deny(deny::DenyCommand),
    Observe(observe::ObserveCommand),
    Suggest(suggest::SuggestCommand),
    Import(import::ImportCommand),
    Delete(delete::DeleteCommand),
    Check(check::CheckCommand),
    Config(config::ConfigCommand),
    Explain(explain::ExplainCommand),
    Secrets(secrets::SecretsCommand),
    Events(events::EventsCommand),
    Top(top::TopCommand),
    Denials(denials::DenialsCommand),
    Flows(flows::FlowsCommand),
    Url(url::UrlCommand),
    Ca(ca::CaCommand),
    Doctor(doctor::DoctorCommand),
    Bugreport(bugreport::BugreportCommand),
    Cleanup(cleanup::CleanupCommand),
    Completions(completions::CompletionsCommand),
    Man(man::ManCommand),
    OciHook(oci_hook::OciHookCommand),
    InstallPlugin(install_plugin::InstallPluginCommand),
}

#[cfg(test)]
pub(crate) use container_policy::POLICY_DIRECTORY;

/// Whether the command line has this command.
#[cfg(test)]
pub(crate) fn is_command(name: &str) -> bool {
    use clap::CommandFactory as _;
    CliArgs::command().get_subcommands().any(|command| command.get_name() == name)
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    if cni::is_called_by_runtime() {
        return cni::main();
    }
    let CliArgs { socket, command } = CliArgs::parse();
    let result = match command {
        CliCommand::Run(command) => command.run(&socket),
        CliCommand::Apply(command) => command.run(&socket),
        CliCommand::Get(command) => command.run(&socket),
        CliCommand::Allow(command) => command.run(&socket),
        CliCommand::Deny(command) => command.run(&socket),
        CliCommand::Observe(command) => command.run(&socket),
        CliCommand::Suggest(command) => command.run(&socket),
        CliCommand::Import(command) => command.run(),
        CliCommand::Delete(command) => command.run(&socket),
        CliCommand::Check(command) => command.run(),
        CliCommand::Config(command) => command.run(),
        CliCommand::Explain(command) => command.run(&socket),
        CliCommand::Secrets(command) => command.run(&socket),
        CliCommand::Events(command) => command.run(&socket),
        CliCommand::Top(command) => command.run(&socket),
        CliCommand::Denials(command) => command.run(&socket),
        CliCommand::Flows(command) => command.run(&socket),
        CliCommand::Url(command) => command.run(&socket),
        CliCommand::Ca(command) => command.run(&socket),
        CliCommand::Doctor(command) => command.run(&socket),
        CliCommand::Bugreport(command) => command.run(&socket),
        CliCommand::Cleanup(command) => command.run(&socket),
        CliCommand::Completions(command) => command.run(),
        CliCommand::Man(command) => command.run(),
        CliCommand::OciHook(command) => command.run(&socket),
        CliCommand::InstallPlugin(command) => command.run(),
    };
    result.map_or_else(CliFailure::report, |()| ExitCode::SUCCESS)
}
