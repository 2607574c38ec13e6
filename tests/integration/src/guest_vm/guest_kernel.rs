//! The kernel of the guests: Debian's, unpacked by `cargo xtask test`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use policy_testbed::network::command;

/// The modules for the guest's network card and console, in the order of their dependencies.
/// Kernels differ in which of them are built in.
const GUEST_MODULES: [&str; 7] = [
    "failover",
    "net_failover",
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_net",
    "virtio_console",
];

/// An unpacked kernel package.
pub struct GuestKernel {
    directory: PathBuf,
}

impl GuestKernel {
    /// The guests' kernel: `POLICY_GUEST_KERNEL`, or the one unpacked by `cargo xtask test`.
    pub fn find_installed() -> Result<Self> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kernels/guest");
        let directory = std::env::var_os("POLICY_GUEST_KERNEL").map_or(unpacked, PathBuf::from);
        let directory = directory.canonicalize().with_context(|| {
            format!("{} is missing: `cargo xtask test` unpacks a kernel", directory.display())
        })?;
        Ok(Self { directory })
    }

    /// The kernel of an unpacked package.
    #[must_use]
    pub const fn from_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory of its modules, which is named after its release.
    pub fn modules_directory(&self) -> Result<PathBuf> {
        let modules = self.directory.join("lib/modules");
        let mut releases =
            fs::read_dir(&modules).with_context(|| format!("reading {}", modules.display()))?;
        let release = releases.next().with_context(|| format!("no release in {modules:?}"))?;
        Ok(release?.path())
    }

    /// The bootable image.
    pub fn image(&self) -> Result<PathBuf> {
        let boot = self.directory.join("boot");
        let files = fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))?;
        let mut files = files.flatten().map(|entry| entry.path());
        let image = files.find(|path| file_name(path).starts_with("vmlinuz"));
        image.with_context(|| format!("no kernel in {}", boot.display()))
    }

    /// The guest modules that are not built in, in loading order.
    pub fn guest_modules(&self) -> Result<Vec<Vec<u8>>> {
        let mut files = Vec::new();
        collect_files(&self.directory.join("lib/modules"), &mut files)?;
        let find = |module: &str| {
            let is_it = |path: &&PathBuf| file_name(path).split('.').next() == Some(module);
            files.iter().filter(|path| file_name(path).contains(".ko")).find(is_it)
        };
        GUEST_MODULES
            .iter()
            .filter_map(|module| find(module))
            .map(|path| read_module(path))
            .collect()
    }
}

/// Reads a module in the format of `insmod`.
pub fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("reading {}", path.display()));
    }
    let unpacked = command::run_unchecked(Command::new("xz").args(["-dc"]).arg(path))?;
    anyhow::ensure!(unpacked.status.success(), "`xz` cannot unpack {}", path.display());
    Ok(unpacked.stdout)
}

/// Collects the files below a directory.
pub fn collect_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_files(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
