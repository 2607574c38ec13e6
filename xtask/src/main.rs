//! `cargo xtask <verb>`: everything that is done to this repository, by one command each.
//!
//! Each verb is a file. Below them: [`toolchain`] finds or installs the compiler for the BPF
//! target, [`tools`] the programs that tests call, by [`apt`] (with [`quiet_services`] none starts a
//! server), [`qemu`] and [`archive`] unpack packages without installing them, [`sdks`] installs the
//! E2B SDKs, [`supply`] cargo-deny, [`host`] runs the cargo that runs us, and [`step`] runs programs
//! and shows how they get on.

mod apt;
mod archive;
mod bench;
mod build;
mod check;
mod demo;
mod fuzz;
mod host;
mod kernels;
mod links;
mod qemu;
mod quiet_services;
mod sdks;
mod setup;
mod step;
mod supply;
mod test;
mod toolchain;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use toolchain::Way;

/// Build, test and measure the policy agent.
///
/// What is missing on this machine (a compiler for the BPF target, the programs which tests call)
/// is installed first. Everything is built in `target/`, whatever `CARGO_TARGET_DIR` says.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    /// Where the compiler for the BPF target comes from; the default is what is there already,
    /// else rustup, else the distribution.
    #[arg(long, global = true, value_enum, env = "XTASK_TOOLCHAIN")]
    toolchain: Option<Way>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the other verbs need, and do nothing else.
    Setup,
    /// Build the kernel programs, then `target/release/policy-agent`.
    Build,
    /// Build, then run all tests (as root).
    Test {
        /// Passed on to `cargo test`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Check links, formatting, lints, documentation, and what is built in of others.
    Check,
    /// Build, then show the agent at work in a network of its own (as root).
    Demo {
        /// Leave the network and the agent behind, to be played with.
        #[arg(long)]
        keep: bool,
    },
    /// Build, then try all that reads foreign bytes on random ones: the egress proxy, the gateway,
    /// the API, files; and the kernel programs on random frames from a sandbox (as root).
    Fuzz {
        /// Cases per target in the agent.
        #[arg(long, default_value_t = 20_000)]
        cases: u32,
        /// Frames on the wire.
        #[arg(long, default_value_t = 0)]
        frames: u64,
    },
    /// Build, then run tests on Debian's kernels, each in a virtual machine (as root).
    ///
    /// Without options it runs nearly all tests on all kernels, which takes an hour or two for each.
    Kernels(kernels::Choice),
    /// Build, then measure (as root).
    Bench {
        /// Passed on to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.verb, cli.toolchain) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb, way: Option<Way>) -> Result<()> {
    match verb {
        Verb::Setup => setup::run(way),
        Verb::Build => build::run(way),
        Verb::Test { args } => test::run(way, &args),
        Verb::Check => check::run(way),
        Verb::Demo { keep } => demo::run(way, keep),
        Verb::Fuzz { cases, frames } => fuzz::run(way, fuzz::Amount { cases, frames }),
        Verb::Kernels(choice) => kernels::run(way, &choice),
        Verb::Bench { args } => bench::run(way, &args),
    }
}
