//! `cargo xtask demo`: shows the agent at work in a small network of its own, with policies like those
//! of the public documentation, and what two sandboxes then reach. Its exit code says whether every
//! row was as expected.

mod internet_process;
mod keep_running;
mod output;
mod page_fetch;
mod scenario;
mod sdk_step;
mod setup;
mod step;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use policy_testbed::network;

use setup::DemoSetup;

/// Builds a small world of network namespaces, runs the agent in it, and shows what two sandboxes
/// may reach. Exit status 0: everything was as expected.
#[derive(Parser)]
struct DemoArguments {
    /// Leave the world behind, to be tried by hand
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    command: Option<DemoCommand>,
}

#[derive(Subcommand)]
enum DemoCommand {
    /// The servers of the demo's internet
    #[command(hide = true)]
    Answer {
        /// Where what their clients need is left
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

/// Runs the demo, and returns whether every row was as expected. With `keep` everything is left
/// running.
fn run(keep: bool) -> Result<bool> {
    network::set_name_prefix("policy-demo");
    output::print_heading("A host, two sandboxes, an \"internet\", and the agent on the host");
    let mut demo = DemoSetup::build()?;
    let mut tally = output::DemoSummary::default();
    for act in scenario::steps() {
        act.run(&mut demo, &mut tally)?;
    }
    sdk_step::run(&demo, &mut tally)?;
    output::print_commands(&demo.agent)?;
    // Last, since an agent that was killed has forgotten what it showed.
    scenario::final_step().run(&mut demo, &mut tally)?;
    output::print_total(&tally);
    if keep {
        keep_running::leave_running(demo)?;
    }
    ensure!(tally.rows > 0, "the demo has shown nothing");
    Ok(tally.as_expected == tally.rows)
}
