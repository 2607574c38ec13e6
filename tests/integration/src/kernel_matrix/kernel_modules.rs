//! The kernel's network modules, and the index by which `modprobe` finds them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::guest_vm::{GuestKernel, Initramfs, collect_files, read_module};
use policy_testbed::network::command;

/// Directories of modules that tests may need, below `kernel/`.
const DIRECTORIES: [&str; 4] = ["crypto", "drivers/net", "lib", "net"];
/// Subdirectories here hold drivers of cards that no virtual machine has.
const CARD_DRIVERS: &str = "drivers/net/";
/// The files that the index is built from, in addition to the modules.
const INDEX_FILES: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// Adds the modules and the index.
pub(crate) fn add_modules(files: &mut Initramfs, kernel: &GuestKernel) -> Result<()> {
    let from = kernel.modules_directory()?;
    let release = from.file_name().context("a release")?;
    let staged = tempfile::tempdir()?;
    let to = staged.path().join("lib/modules").join(release);
    fs::create_dir_all(&to)?;
    for name in INDEX_FILES {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    for path in network_modules(&from)? {
        let below = path.strip_prefix(&from)?.to_str().context("a name in UTF-8")?;
        let copy = to.join(below.trim_end_matches(".xz"));
        fs::create_dir_all(copy.parent().context("a directory")?)?;
        fs::write(&copy, read_module(&path)?)?;
    }
    let mut index = Command::new("busybox");
    command::run(index.args(["depmod", "-b"]).arg(staged.path()).arg(release))?;
    let mut all = Vec::new();
    collect_files(staged.path(), &mut all)?;
    for path in all {
        let name = path.strip_prefix(staged.path())?.to_str().context("a name in UTF-8")?;
        files.add_file(name, &fs::read(&path)?)?;
    }
    Ok(())
}

fn network_modules(from: &Path) -> Result<Vec<PathBuf>> {
    let kernel = from.join("kernel");
    let mut all = Vec::new();
    for directory in DIRECTORIES {
        collect_files(&kernel.join(directory), &mut all)?;
    }
    let is_wanted = |path: &PathBuf| {
        let below = path.strip_prefix(&kernel).unwrap_or(path).to_string_lossy();
        let of_a_card = below.strip_prefix(CARD_DRIVERS).is_some_and(|name| name.contains('/'));
        below.contains(".ko") && !of_a_card
    };
    all.retain(is_wanted);
    Ok(all)
}
