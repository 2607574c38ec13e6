//! A guest's whole file system: busybox, modules, and an init that gives its virtio line a shell.

use std::{fs, io::Write as _};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, trailer};

use super::Kernel;

/// Statically linked: a guest has no libraries.
const BUSYBOX: &str = "/bin/busybox";

/// What init says when its shell listens.
pub(super) const READY: &str = "<<the guest is ready>>\n";

/// The shell reads from a pipe, so that it neither prompts nor edits lines. The line is there at once
/// when its driver is, but cannot be opened until QEMU has answered.
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

/// `S_IFDIR`, and who may enter.
const DIRECTORY: u32 = 0o040_755;
/// `S_IFREG`, and who may run it.
const PROGRAM: u32 = 0o100_755;

/// The archive, as the kernel unpacks it (`newc`, without compression: unpacking costs more than
/// copying in an emulated machine).
pub fn build(kernel: &Kernel) -> Result<Vec<u8>> {
    let busybox = fs::read(BUSYBOX).context("reading busybox (Debian's package busybox-static)")?;
    let mut archive = Vec::new();
    for directory in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
        add(&mut archive, directory, DIRECTORY, &[])?;
    }
    add(&mut archive, "bin/busybox", PROGRAM, &busybox)?;
    add(&mut archive, "init", PROGRAM, INIT.as_bytes())?;
    for (number, module) in kernel.modules()?.iter().enumerate() {
        add(&mut archive, &format!("modules/{number}.ko"), PROGRAM, module)?;
    }
    trailer(&mut archive)?;
    Ok(archive)
}

fn add(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) -> Result<()> {
    let entry = Builder::new(name).mode(mode).nlink(1);
    let mut writer = entry.write(archive, u32::try_from(data.len())?);
    writer.write_all(data)?;
    writer.finish()?;
    Ok(())
}
