//! The toolchain for the BPF target: a rustc, libcore for that target, and a `bpf-linker` that uses
//! the same LLVM as that rustc.
//!
//! rustup's stable toolchain has no libcore for the target. Two sources provide one: [`rustup`], a
//! pinned nightly that compiles libcore from source, and [`system`], a distribution's rustc with a
//! precompiled libcore. Both emit the same instructions. An installed toolchain is preferred to one
//! that must be fetched, and rustup to the distribution, since it is pinned and needs no root.

mod bpf_linker;
mod rustup;
mod system;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;

use crate::{host, process};

/// BPF programs have the byte order of the machine.
pub(crate) const BPF_TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// A source of compilers.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ToolchainSource {
    /// A nightly toolchain of rustup, with libcore's source.
    Rustup,
    /// The distribution's packages.
    System,
}

/// A compiler and its properties.
struct BpfCompiler {
    /// The directory of rustc, cargo and cargo-clippy: the programs themselves, not rustup's
    /// proxies.
    bin: PathBuf,
    /// Whether libcore must be compiled from source.
    build_std: bool,
}

/// Everything that a build for the BPF target needs.
pub(crate) struct BpfToolchain {
    compiler: BpfCompiler,
    linker: PathBuf,
}

/// Finds a toolchain, or installs one.
pub(crate) fn ensure_toolchain(wanted: Option<ToolchainSource>) -> Result<BpfToolchain> {
    let ways = wanted.as_ref().map_or(ToolchainSource::value_variants(), std::slice::from_ref);
    let compiler = match ways.iter().find_map(|way| way.find()) {
        Some(compiler) => compiler,
        None => install_any(ways)?,
    };
    let about = compiler.rustc_version()?;
    let linker = bpf_linker::ensure_linker(&compiler.bin.join("rustc"), &about.llvm_version)?;
    process::report(&format!(
        "BPF toolchain: rustc {} in {}, LLVM {}, bpf-linker {}",
        about.release,
        compiler.bin.display(),
        about.llvm_version,
        bpf_linker::BPF_LINKER_VERSION
    ));
    Ok(BpfToolchain { compiler, linker })
}

/// Tries each source in turn, and reports why each one failed.
fn install_any(ways: &[ToolchainSource]) -> Result<BpfCompiler> {
    process::report(
        "no compiler for the BPF target here (rustup's stable toolchain has no libcore for it)",
    );
    let mut failures = Vec::new();
    for way in ways {
        let installed = way.install().and_then(|()| {
            way.find().ok_or_else(|| anyhow!("installed, but not complete or not as expected"))
        });
        match installed {
            Ok(compiler) => return Ok(compiler),
            Err(error) => {
                process::report(&format!("{}: {error:#}", way.name()));
                failures.push(way.name());
            }
        }
    }
    bail!(
        "no compiler for the BPF target by way of {} (reasons above). Install one of them by \
         hand: {}, or {}",
        failures.join(" or "),
        rustup::manual_instructions(),
        system::manual_instructions()
    );
}

impl ToolchainSource {
    fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::System => "the distribution's packages",
        }
    }

    fn find(self) -> Option<BpfCompiler> {
        match self {
            Self::Rustup => rustup::find_compiler(),
            Self::System => system::find_compiler(),
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Self::Rustup => rustup::install_toolchain(),
            Self::System => system::install_packages(),
        }
    }
}

/// The versions in the output of `rustc -vV`.
struct RustcVersion {
    release: String,
    llvm_version: String,
}

impl BpfCompiler {
    fn rustc_version(&self) -> Result<RustcVersion> {
        let rustc = self.bin.join("rustc");
        let text = process::run_output(isolated_command(&rustc).arg("-vV"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
                .with_context(|| format!("{} -vV does not say {name}", rustc.display()))
        };
        Ok(RustcVersion { release: field("release:")?, llvm_version: field("LLVM version:")? })
    }
}

impl BpfToolchain {
    /// `cargo <subcommand>` for policy-ebpf on the BPF target.
    pub(crate) fn cargo(&self, subcommand: &str) -> Result<Command> {
        self.target_command(&self.compiler.bin.join("cargo"), subcommand)
    }

    /// This toolchain's clippy; `cargo clippy` might find another's on the path.
    pub(crate) fn clippy(&self) -> Result<Command> {
        self.target_command(&self.compiler.bin.join("cargo-clippy"), "clippy")
    }

    fn target_command(&self, program: &Path, subcommand: &str) -> Result<Command> {
        let bin = &self.compiler.bin;
        let mut command = isolated_command(program);
        command.args([subcommand, "--release", "--package", "policy-ebpf", "--target", BPF_TARGET]);
        // A separate directory: a different rustc would invalidate the host's build.
        command.arg("--target-dir").arg(host::target_dir().join("bpf"));
        if self.compiler.build_std {
            command.arg("-Zbuild-std=core");
        }
        command
            .env("CARGO", bin.join("cargo"))
            .env("RUSTC", bin.join("rustc"))
            .env("PATH", path_with(bin)?)
            // aya-ebpf needs inline assembly for BPF, which is unstable in rustc.
            .env("RUSTC_BOOTSTRAP", "1")
            // Replaces RUSTFLAGS and build.rustflags, which apply to the host.
            .env("CARGO_ENCODED_RUSTFLAGS", self.target_flags().join("\x1f"));
        Ok(command)
    }

    fn target_flags(&self) -> [String; 5] {
        [
            // aya-ebpf selects the layout of pt_regs by this.
            "--cfg".into(),
            format!("bpf_target_arch=\"{}\"", env::consts::ARCH),
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            format!("-Clinker={}", self.linker.display()),
        ]
    }
}

/// A command without the environment variables that cargo and rustup set for the host's toolchain,
/// and without the user's settings for it.
fn isolated_command(program: impl AsRef<Path>) -> Command {
    let mut command = host::command(program.as_ref());
    let prefixes = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUSTC", "RUSTDOC"];
    for (name, _) in env::vars_os() {
        if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    for name in ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    // `cargo run` adds the libraries of the host's toolchain.
    command.env_remove("LD_LIBRARY_PATH");
    // Also overrides a wrapper (sccache) in the user's configuration.
    command.env("RUSTC_WRAPPER", "");
    command
}

fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let rest = env::split_paths(&path);
    Ok(env::join_paths([first.to_owned()].into_iter().chain(rest))?)
}
