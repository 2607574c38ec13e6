//! A distribution's rustc, with a libcore which the distribution has compiled for the BPF target.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{Compiler, TARGET, isolated};
use crate::{apt, host, step};

/// Debian 12's packages, kept up to date for its browsers; they bring the LLVM they use.
const PACKAGES: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    // libcore for bpfel-unknown-none and bpfeb-unknown-none
    "libstd-rust-web-dev-bpf",
    // for `check`
    "rust-web-clippy",
];

/// The oldest that builds this workspace (`rust-version` in Cargo.toml): 1.95.
const OLDEST_MINOR: u32 = 95;

pub fn by_hand() -> String {
    format!(
        "`apt-get install {}` (Debian 12 with its security updates), another distribution's rustc \
         (1.{OLDEST_MINOR} or newer), cargo, clippy and libcore for {TARGET} in /usr",
        PACKAGES.join(" ")
    )
}

pub fn find() -> Option<Compiler> {
    let bin = PathBuf::from("/usr/bin");
    let rustc = bin.join("rustc");
    let ask = |args: &[&str]| step::output(isolated(&rustc).args(args)).ok();
    let recent = minor(&ask(&["-V"])?)? >= OLDEST_MINOR;
    let libraries = ask(&["--print", "target-libdir", "--target", TARGET])?;
    let complete = has_core(Path::new(libraries.trim()))
        && ["cargo", "cargo-clippy"].iter().all(|program| bin.join(program).is_file());
    (recent && complete).then_some(Compiler { bin, build_std: false })
}

fn has_core(libraries: &Path) -> bool {
    let entries = fs::read_dir(libraries).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

pub fn install() -> Result<()> {
    if host::find("apt-get").is_none() {
        bail!("there is no apt-get here");
    }
    // The lists of an old image name versions from before the target was supported.
    if host::is_root() && !offered() {
        apt::update()?;
        if !offered() {
            bail!("this release of the distribution has no {} of 1.{OLDEST_MINOR}", PACKAGES[2]);
        }
    }
    apt::install(&PACKAGES, "a compiler for the BPF target (about 100 MB)")
}

fn offered() -> bool {
    PACKAGES.iter().all(|package| {
        apt::candidate(package).is_some_and(|version| minor(&version) >= Some(OLDEST_MINOR))
    })
}

/// The 96 of "rustc 1.96.0 (ac68faa20 2026-05-25)" and of "1.96.0+dfsg1-1~deb12u2".
fn minor(version: &str) -> Option<u32> {
    version.trim_start_matches("rustc ").strip_prefix("1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_is_the_second_number() {
        assert_eq!(minor("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some(96));
        assert_eq!(minor("1.85.0+dfsg3-1~deb12u3"), Some(85));
        assert_eq!(minor("(none)"), None);
    }
}
