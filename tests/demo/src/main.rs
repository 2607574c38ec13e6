//! `cargo xtask demo`: runs the agent in a small test network, with policies like those of the
//! public documentation, and shows what sandboxes can reach under them. The exit status tells
//! whether every row was as expected.

mod internet_process;
mod keep_running;
mod output;
mod page_fetch;
mod scenario;
mod sdk_step;
mod secret_step;
mod setup;
mod step;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use policy_testbed::network;

use setup::DemoSetup;

/// Builds a small network of namespaces, runs the agent in it, and shows what sandboxes can
/// reach. Exit status 0: everything was as expected.
#[derive(Parser)]
struct DemoArguments {
    /// Keep the network and the agent running for experiments
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    command: Option<DemoCommand>,
}

#[derive(Subcommand)]
enum DemoCommand {
    /// Run the servers of the demo's internet
    #[command(hide = true)]
    Answer {
        /// The directory for the files of their clients
        files: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = DemoArguments::parse();
    let result = match arguments.command {
        Some(DemoCommand::Answer { files }) => {
            internet_process::serve_internet(&files).map(|()| true)
        }
        None => run(arguments.keep),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo and returns whether every row was as expected. `keep` leaves everything running.
fn run(keep: bool) -> Result<bool> {
    network::set_name_prefix("policy-demo");
    output::print_heading("A host, three sandboxes, an \"internet\", and the agent on the host");
    let mut demo = DemoSetup::build()?;
    let mut tally = output::DemoSummary::default();
    for act in scenario::steps() {
        act.run(&mut demo, &mut tally)?;
    }
    secret_step::run(&mut demo, &mut tally)?;
    sdk_step::run(&demo, &mut tally)?;
    output::print_commands(&demo.agent)?;
    // This step comes last, since a killed agent loses what the commands above show.
    scenario::final_step().run(&mut demo, &mut tally)?;
    output::print_total(&tally);
    if keep {
        keep_running::leave_running(demo)?;
    }
    ensure!(tally.rows > 0, "the demo has shown nothing");
    Ok(tally.as_expected == tally.rows)
}
