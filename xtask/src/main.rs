//! `cargo xtask <verb>`: all tasks of this repository, one command each.
//!
//! Each verb is a file. They build on these modules: [`toolchain`] finds or installs the compiler
//! for the BPF target. [`system_packages`] installs the programs that tests call, through
//! [`apt_get`] and with [`quiet_services`], which keeps packages from starting servers.
//! [`qemu_install`] and [`debian_archive`] unpack packages without installing them. [`sdk_install`]
//! installs the E2B SDKs, [`dependency_audit`] cargo-deny. [`host`] runs the cargo that started
//! xtask, and [`process`] runs programs and shows their progress.

mod apt_get;
mod bench;
mod build;
mod check;
mod debian_archive;
mod demo;
mod dependency_audit;
mod dist;
mod fuzz;
mod host;
mod kernel_tests;
mod links;
mod process;
mod qemu_install;
mod quiet_services;
mod screenshots;
mod sdk_install;
mod setup;
mod structure;
mod system_packages;
mod test;
mod toolchain;
mod upgrade_test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use toolchain::ToolchainSource;

/// Build, test and measure the policy agent.
///
/// Installs what is missing on this machine first: a compiler for the BPF target, and the programs
/// that tests call. Builds everything in `target/`, whatever `CARGO_TARGET_DIR` says.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct XtaskCli {
    /// Source of the compiler for the BPF target. Default: what is installed, else rustup, else the
    /// distribution.
    #[arg(long, global = true, value_enum, env = "XTASK_TOOLCHAIN")]
    toolchain: Option<ToolchainSource>,
    #[command(subcommand)]
    command: XtaskCommand,
}

#[derive(Subcommand)]
enum XtaskCommand {
    /// Install what the other verbs need, and do nothing else.
    Setup,
    /// Build the kernel programs, then `target/release/policy-agent`.
    Build,
    /// Build, then run all tests, and a few of them on other kernels (as root).
    Test {
        /// Passed to `cargo test`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Check links, source structure, formatting, lints, documentation and dependencies.
    Check,
    /// Build, then show the agent at work in a test network (as root).
    Demo {
        /// Keep the network and the agent running for experiments.
        #[arg(long)]
        keep: bool,
    },
    /// Build, then feed random input to all parsers of untrusted data (the egress proxy, the
    /// gateway, the API, files), and random frames to the kernel programs (as root).
    Fuzz {
        /// Cases per target in the agent.
        #[arg(long, default_value_t = 20_000)]
        cases: u32,
        /// Raw frames.
        #[arg(long, default_value_t = 0)]
        frames: u64,
    },
    /// Build, then run tests on Debian's kernels, each in a virtual machine (as root).
    ///
    /// By default, runs nearly all tests on all kernels, which takes an hour or two per kernel.
    Kernels(kernel_tests::KernelsArgs),
    /// Build an older agent from the history and this one, then let this one take over from it while
    /// traffic flows (as root).
    UpgradeTest {
        /// The commit of the older agent. Default: the last one with the ABI before this one.
        revision: Option<String>,
    },
    /// Build the release, and make a `.deb`, a tarball, an SBOM and an OCI image layout in
    /// `target/dist`.
    Dist(dist::DistArgs),
    /// Build, then take the pictures in docs/images (as root).
    Screenshots,
    /// Build, then run the benchmarks (as root).
    Bench {
        /// Passed to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = XtaskCli::parse();
    match run(cli.command, cli.toolchain) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: XtaskCommand, way: Option<ToolchainSource>) -> Result<()> {
    match verb {
        XtaskCommand::Setup => setup::run(way),
        XtaskCommand::Build => build::run(way),
        XtaskCommand::Test { args } => test::run(way, &args),
        XtaskCommand::Check => check::run(way),
        XtaskCommand::Demo { keep } => demo::run(way, keep),
        XtaskCommand::Fuzz { cases, frames } => fuzz::run(way, fuzz::FuzzAmount { cases, frames }),
        XtaskCommand::Kernels(choice) => kernel_tests::run(way, &choice),
        XtaskCommand::UpgradeTest { revision } => upgrade_test::run(way, revision.as_deref()),
        XtaskCommand::Dist(args) => dist::run(way, args),
        XtaskCommand::Screenshots => screenshots::run(way),
        XtaskCommand::Bench { args } => bench::run(way, &args),
    }
}
