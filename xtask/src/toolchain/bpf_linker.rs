//! Compiles `bpf-linker` against the LLVM library that rustc uses.
//!
//! It links rustc's bitcode, so both must use the same LLVM. Its LLVM bindings are plain
//! declarations: they need the shared library only, without headers or development packages. The
//! result is kept in the user's cache for all checkouts, keyed by the versions of bpf-linker and
//! LLVM.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::isolated_command;
use crate::{host, process};

pub(crate) const BPF_LINKER_VERSION: &str = "0.13.0";

/// The major versions of LLVM for which bpf-linker 0.13.0 has a feature.
const LLVM_MAJORS: [&str; 3] = ["21", "22", "23"];

/// Returns the linker's path. `llvm` is the version which `rustc` reports.
pub(crate) fn ensure_linker(rustc: &Path, llvm: &str) -> Result<PathBuf> {
    let prefix = host::cache_dir().join(format!("bpf-linker-{BPF_LINKER_VERSION}-llvm-{llvm}"));
    let linker = prefix.join("bin/bpf-linker");
    if is_runnable(&linker) {
        return Ok(linker);
    }
    link_library(rustc, &prefix.join("lib"))?;
    compile_linker(&prefix, llvm)?;
    if !is_runnable(&linker) {
        bail!("{} was compiled, but does not run: try it with --version", linker.display());
    }
    Ok(linker)
}

/// Returns whether the linker starts, which shows that its LLVM library still exists.
fn is_runnable(linker: &Path) -> bool {
    let version = process::run_output(isolated_command(linker).arg("--version"));
    version.is_ok_and(|text| text.trim() == format!("bpf-linker {BPF_LINKER_VERSION}"))
}

/// Links rustc's LLVM under the names that an installed one has: `libLLVM.so` for the linker, its
/// soname for the loader.
fn link_library(rustc: &Path, directory: &Path) -> Result<()> {
    let libraries = process::run_output(isolated_command("ldd").arg(rustc))?;
    let (soname, library) = find_llvm_library(&libraries).with_context(|| {
        format!("{} does not use LLVM as a shared library, so bpf-linker cannot", rustc.display())
    })?;
    fs::create_dir_all(directory)?;
    for name in ["libLLVM.so", soname] {
        let link = directory.join(name);
        let _ = fs::remove_file(&link);
        symlink(library, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(())
}

/// The name and path of LLVM in the output of ldd: `libLLVM.so.22.1 => /lib/libLLVM.so.22.1 (0x…)`.
fn find_llvm_library(ldd: &str) -> Option<(&str, &str)> {
    ldd.lines().find_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let (path, _address) = rest.rsplit_once(" (")?;
        name.starts_with("libLLVM").then_some((name, path))
    })
}

fn compile_linker(prefix: &Path, llvm: &str) -> Result<()> {
    let major = llvm.split('.').next().unwrap_or(llvm);
    if !LLVM_MAJORS.contains(&major) {
        bail!("bpf-linker {BPF_LINKER_VERSION} knows LLVM {LLVM_MAJORS:?}, but rustc has {llvm}");
    }
    let what =
        format!("compiling bpf-linker {BPF_LINKER_VERSION} for LLVM {llvm} (once, about a minute)");
    let mut install = host::cargo("install");
    install
        // Without optimisation, since LLVM does the work.
        .args(["bpf-linker", "--locked", "--force", "--debug", "--no-default-features", "--root"])
        .arg(prefix)
        .arg(format!("--version={BPF_LINKER_VERSION}"))
        .arg(format!("--features=llvm-{major}"))
        .env("LLVM_PREFIX", prefix)
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        // Cargo then uses a temporary directory.
        .env_remove("CARGO_TARGET_DIR");
    process::run_logged(&what, "bpf-linker", &mut install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_is_found_in_the_output_of_ldd() {
        let ldd = "\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\
                   \tlibLLVM.so.22.1 => /lib/libLLVM.so.22.1 (0x7e)\n";
        assert_eq!(find_llvm_library(ldd), Some(("libLLVM.so.22.1", "/lib/libLLVM.so.22.1")));
        assert_eq!(find_llvm_library("\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n"), None);
    }
}
