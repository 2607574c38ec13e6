//! Runs test binaries on other kernels. `cargo xtask kernels` passes the paths of both.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use policy_integration::kernel_matrix::KernelTestRun;
use policy_testbed::agent;

/// Boots kernels in virtual machines and runs tests in them. Exit status 0: all passed.
#[derive(Parser)]
struct KernelsArguments {
    /// A directory with an unpacked kernel package
    #[arg(long = "kernel", required = true)]
    kernels: Vec<PathBuf>,
    /// A test binary
    #[arg(long = "test", required = true)]
    tests: Vec<PathBuf>,
    /// How many seconds tests wait for expected events on the emulated machine
    #[arg(long, default_value_t = 90)]
    patience: u32,
    /// Arguments for each binary: test names or options
    #[arg(last = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    match run_all(&KernelsArguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("kernels: {failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("kernels: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of failed binaries over all kernels.
fn run_all(arguments: &KernelsArguments) -> Result<usize> {
    let agent = agent::agent_binary()?;
    let mut failed = 0;
    for kernel in &arguments.kernels {
        let suite = KernelTestRun {
            kernel,
            agent: &agent,
            tests: &arguments.tests,
            arguments: &arguments.arguments,
            wait_seconds: arguments.patience,
        };
        failed += suite.run()?;
    }
    Ok(failed)
}
