//! `cargo xtask dist`: build the release, and make the packages in `target/dist`: a `.deb`, a
//! tarball with checksums, an SBOM, and an OCI image layout.

mod deb;
mod files;
mod oci_image;
mod sbom;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::toolchain::{self, ToolchainSource};
use crate::{build, host, process};

/// The version of the packages: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Linked statically, so that it runs on every distribution.
const STATIC_FLAGS: &str = "-C target-feature=+crt-static";

/// What the packages are made from, and where they are made.
struct PackageInput {
    /// The agent, without debug information.
    binary: PathBuf,
    /// The version of the packages.
    version: String,
    /// Where the packages are written.
    output: PathBuf,
    /// The seconds since 1970 that all files carry: the time of the commit, so that equal sources
    /// make equal packages.
    timestamp: String,
}

/// The options of the verb.
#[derive(clap::Args)]
pub(crate) struct DistArgs {
    /// Package this agent instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Directory for the packages. Default: `target/dist`.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Version of the packages. Default: that of the workspace.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Make the Debian package alone.
    #[arg(long)]
    deb_only: bool,
}

pub(crate) fn run(way: Option<ToolchainSource>, args: DistArgs) -> Result<()> {
    let output = args.output.unwrap_or_else(|| host::target_dir().join("dist"));
    let built = match args.binary {
        Some(binary) => binary,
        None => build_static(way)?,
    };
    let work = output.join("work");
    recreate_directory(&work)?;
    let binary = work.join("policy-agent");
    process::run_output(host::command("strip").arg("-o").arg(&binary).arg(&built))?;
    let git_time = process::run_output(host::command("git").args(["log", "-1", "--format=%ct"]));
    let input = PackageInput {
        binary,
        version: args.version.unwrap_or_else(|| VERSION.to_owned()),
        output: output.clone(),
        timestamp: git_time.map_or_else(|_| "0".to_owned(), |time| time.trim().to_owned()),
    };
    files::install_files(&input.binary, &output.join("work/root"))?;
    if args.deb_only {
        deb::make_package(&input, &input.output.join("work/root"))?;
    } else {
        make_packages(&input)?;
    }
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

fn make_packages(input: &PackageInput) -> Result<()> {
    let root = input.output.join("work/root");
    let made = [
        deb::make_package(input, &root)?,
        tarball::make_tarball(input, &root)?,
        sbom::write_sbom(input)?,
    ];
    oci_image::write_layout(input)?;
    let mut checksums = host::command("sha256sum");
    checksums.current_dir(&input.output);
    checksums.args(made.iter().filter_map(|path| path.file_name()));
    let checksums = process::run_output(&mut checksums)?;
    fs::write(input.output.join("SHA256SUMS"), checksums).context("cannot write SHA256SUMS")?;
    for path in made {
        process::report(&path.display().to_string());
    }
    Ok(())
}

/// Builds the agent without any shared library.
fn build_static(way: Option<ToolchainSource>) -> Result<PathBuf> {
    build::build_bpf_objects(&toolchain::ensure_toolchain(way)?)?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = host::cargo("build");
    // With a target, the flags do not apply to build scripts and procedural macros.
    cargo.args(["--release", "--package", "policy-agent", "--target", &target]);
    process::run_streamed(cargo.env("RUSTFLAGS", STATIC_FLAGS))?;
    Ok(host::target_dir().join(target).join("release/policy-agent"))
}

fn recreate_directory(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}
