//! The machine that xtask runs on: the checkout, its target directory, programs on the path, the
//! current user, and the cargo that started xtask.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Names of directories that are not part of the source.
pub(crate) const BUILT_DIRECTORIES: [&str; 3] = ["target", ".git", "node_modules"];

/// The top of the checkout.
pub(crate) fn repository_root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Always `target/`: build scripts, tests and documents name paths in it.
pub(crate) fn target_dir() -> PathBuf {
    repository_root().join("target")
}

/// The files below a directory in ascending order, without those in [`BUILT_DIRECTORIES`].
pub(crate) fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut unlisted = vec![directory.to_owned()];
    while let Some(directory) = unlisted.pop() {
        let entries = fs::read_dir(&directory);
        for entry in entries.with_context(|| format!("cannot list {}", directory.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if BUILT_DIRECTORIES.iter().any(|built| name == *built) {
                continue;
            }
            let found = if entry.file_type()?.is_dir() { &mut unlisted } else { &mut files };
            found.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Where tools that are compiled once for all checkouts are kept.
pub(crate) fn cache_dir() -> PathBuf {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.map_or_else(|| target_dir().join("tools"), |cache| cache.join("policy-agent"))
}

/// A command that runs at the top of the checkout and cannot prompt.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository_root()).stdin(Stdio::null());
    command
}

/// The cargo (and, through `RUSTUP_TOOLCHAIN`, the toolchain) that runs xtask, so that its builds
/// stay fresh. The environment is the user's, so `RUSTFLAGS` means the same as for xtask itself.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(subcommand).env("CARGO_TARGET_DIR", target_dir());
    cargo
}

/// Searches for a program on the path, and in the directories that other users than root often
/// lack.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administration = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(administration)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

/// For verbs that create network namespaces and load kernel programs. Nothing is skipped silently.
pub(crate) fn require_root(verb: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "`{verb}` makes network namespaces and loads kernel programs, so it needs root: run \
         `sudo env HOME=\"$HOME\" PATH=\"$PATH\" cargo xtask {verb}` (what it leaves in target/ then \
         belongs to root)"
    );
}
