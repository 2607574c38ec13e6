//! A guest's whole file system: busybox, modules, an init that starts a shell on the virtio
//! console, and added files.
//! else it is given.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, trailer};

use super::GuestKernel;

/// Statically linked, since a guest has no libraries.
const BUSYBOX: &str = "/bin/busybox";

/// The output of init when its shell is ready.
pub(super) const READY_MARKER: &str = "<<the guest is ready>>\n";

/// The shell reads from a pipe, so that it neither prompts nor edits lines. The console device
/// exists as soon as its driver is loaded, but cannot be opened until QEMU has responded.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in /modules/*; do insmod $module; done
until line=$(ls /dev/vport*p1) && (: <>$line); do sleep 0.05; done 2>/dev/null
exec 4<>$line >&4 2>&1
echo "<<the guest is ready>>"
cat <&4 | sh
"#;

/// `S_IFDIR` and permissions.
const DIRECTORY_MODE: u32 = 0o040_755;
/// `S_IFREG` and permissions.
const EXECUTABLE_MODE: u32 = 0o100_755;

/// The archive in the kernel's format (`newc`, uncompressed: on an emulated machine, decompression
/// costs more than copying).
pub struct Initramfs {
    archive: Vec<u8>,
    entries: BTreeSet<String>,
}

impl Initramfs {
    /// Creates an archive with the files that every guest needs.
    pub fn for_kernel(kernel: &GuestKernel) -> Result<Self> {
        let busybox =
            fs::read(BUSYBOX).context("reading busybox (Debian's package busybox-static)")?;
        let mut files = Self { archive: Vec::new(), entries: BTreeSet::new() };
        for directory in ["dev", "proc", "sys", "tmp"] {
            files.add_directory(directory)?;
        }
        files.add_file("bin/busybox", &busybox)?;
        files.add_file("init", INIT.as_bytes())?;
        for (number, module) in kernel.guest_modules()?.iter().enumerate() {
            files.add_file(&format!("modules/{number}.ko"), module)?;
        }
        Ok(files)
    }

    /// Adds an executable file and its parent directories. The first file of a name is kept.
    pub fn add_file(&mut self, name: &str, data: &[u8]) -> Result<()> {
        if let Some(parent) = Path::new(name).parent().and_then(Path::to_str) {
            self.add_directory(parent)?;
        }
        self.add_entry(name, EXECUTABLE_MODE, data)
    }

    /// Adds a directory and its parents.
    pub fn add_directory(&mut self, name: &str) -> Result<()> {
        let ancestors: Vec<&Path> = Path::new(name).ancestors().collect();
        for directory in ancestors.iter().rev().filter_map(|path| path.to_str()) {
            if !directory.is_empty() {
                self.add_entry(directory, DIRECTORY_MODE, &[])?;
            }
        }
        Ok(())
    }

    /// Returns the complete archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        trailer(&mut self.archive)?;
        Ok(self.archive)
    }

    fn add_entry(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        if !self.entries.insert(name.to_owned()) {
            return Ok(());
        }
        let entry = Builder::new(name).mode(mode).nlink(1);
        let mut writer = entry.write(&mut self.archive, u32::try_from(data.len())?);
        writer.write_all(data)?;
        writer.finish()?;
        Ok(())
    }
}
