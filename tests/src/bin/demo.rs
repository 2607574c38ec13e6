//! `cargo run -p policy-tests --bin demo`: shows the agent at work in a small world of its own.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use policy_tests::demo;

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
        Some(DemoCommand::Answer { files }) => demo::serve_internet(&files).map(|()| true),
        None => demo::run(arguments.keep),
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
