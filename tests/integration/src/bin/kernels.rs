//! Runs test binaries on other kernels. `cargo xtask kernels` calls it with the paths of both.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use policy_integration::kernel_matrix::KernelTestRun;
use policy_testbed::agent;

/// Boots kernels in virtual machines, and runs tests in them. Exit status 0: all passed.
#[derive(Parser)]
struct KernelsArguments {
    /// A directory with an unpacked package of a kernel
    #[arg(long = "kernel", required = true)]
    kernels: Vec<PathBuf>,
    /// A binary that cargo has made of tests
    #[arg(long = "test", required = true)]
    tests: Vec<PathBuf>,
    /// How many seconds tests wait for what should happen, on a machine that is emulated
    #[arg(long, default_value_t = 90)]
    patience: u32,
    /// What each binary is told: names of tests, or options
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

/// How many binaries failed, of all kernels.
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
