//! A distribution's rustc, with the distribution's libcore for the BPF target.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{BPF_TARGET, BpfCompiler, isolated_command};
use crate::{apt_get, host, process};

/// Debian 12's packages, kept up to date for its browsers. They include the LLVM they use.
const DEBIAN_PACKAGES: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    // libcore for bpfel-unknown-none and bpfeb-unknown-none
    "libstd-rust-web-dev-bpf",
    // for `check`
    "rust-web-clippy",
];

/// The oldest rustc that builds this workspace (`rust-version` in Cargo.toml): 1.95.
const OLDEST_MINOR: u32 = 95;

pub(crate) fn manual_instructions() -> String {
    format!(
        "`apt-get install {}` (Debian 12 with its security updates), another distribution's rustc \
         (1.{OLDEST_MINOR} or newer), cargo, clippy and libcore for {BPF_TARGET} in /usr",
        DEBIAN_PACKAGES.join(" ")
    )
}

pub(crate) fn find_compiler() -> Option<BpfCompiler> {
    let bin = PathBuf::from("/usr/bin");
    let rustc = bin.join("rustc");
    let ask = |args: &[&str]| process::run_output(isolated_command(&rustc).args(args)).ok();
    let recent = minor_version(&ask(&["-V"])?)? >= OLDEST_MINOR;
    let libraries = ask(&["--print", "target-libdir", "--target", BPF_TARGET])?;
    let complete = has_libcore(Path::new(libraries.trim()))
        && ["cargo", "cargo-clippy"].iter().all(|program| bin.join(program).is_file());
    (recent && complete).then_some(BpfCompiler { bin, build_std: false })
}

fn has_libcore(libraries: &Path) -> bool {
    let entries = fs::read_dir(libraries).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

pub(crate) fn install_packages() -> Result<()> {
    if host::find_program("apt-get").is_none() {
        bail!("there is no apt-get here");
    }
    // The package lists of an old image may predate the support for the target.
    if host::is_root() && !packages_are_offered() {
        apt_get::update_lists()?;
        if !packages_are_offered() {
            bail!(
                "this release of the distribution has no {} of 1.{OLDEST_MINOR}",
                DEBIAN_PACKAGES[2]
            );
        }
    }
    apt_get::install_packages(&DEBIAN_PACKAGES, "a compiler for the BPF target (about 100 MB)")
}

fn packages_are_offered() -> bool {
    DEBIAN_PACKAGES.iter().all(|package| {
        apt_get::candidate_version(package)
            .is_some_and(|version| minor_version(&version) >= Some(OLDEST_MINOR))
    })
}

/// The 96 in "rustc 1.96.0 (ac68faa20 2026-05-25)" and in "1.96.0+dfsg1-1~deb12u2".
fn minor_version(version: &str) -> Option<u32> {
    version.trim_start_matches("rustc ").strip_prefix("1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_is_the_second_number() {
        assert_eq!(minor_version("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some(96));
        assert_eq!(minor_version("1.85.0+dfsg3-1~deb12u3"), Some(85));
        assert_eq!(minor_version("(none)"), None);
    }
}
