//! Copies programs of this machine into the file system of a virtual machine.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::guest_vm::Initramfs;
use policy_testbed::{agent::fake_clock, network::command};

/// The programs that tests call. Browsers, the E2B SDKs and QEMU are not included: their tests do
/// not depend on the kernel.
const PROGRAMS: [&str; 11] = [
    "curl",
    "dnsmasq",
    "ip",
    "microsocks",
    "nft",
    "nginx",
    "ping",
    "prlimit",
    "setpriv",
    "tc",
    "unshare",
];

/// User and service databases, which daemons need.
const FILES: [&str; 6] = [
    "/etc/group",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/services",
];

/// Directories that daemons need.
const DIRECTORIES: [&str; 3] = ["var/lib/nginx", "var/log/nginx", "root"];

/// Adds the programs that tests call.
pub(crate) fn add_programs(files: &mut Initramfs) -> Result<()> {
    for directory in DIRECTORIES {
        files.add_directory(directory)?;
    }
    for file in FILES {
        if let Ok(data) = fs::read(file) {
            files.add_file(file.trim_start_matches('/'), &data)?;
        }
    }
    let clock = fake_clock::faketime_library();
    add_program(files, clock.to_string_lossy().trim_start_matches('/'), &clock)?;
    for program in PROGRAMS {
        if let Some(path) = find_program(program) {
            add_program(files, &format!("usr/bin/{program}"), &path)?;
        }
    }
    Ok(())
}

/// Adds a program without its symbols, and its shared libraries.
pub(crate) fn add_program(files: &mut Initramfs, name: &str, path: &Path) -> Result<()> {
    files.add_file(name, &strip_symbols(path)?)?;
    let listed = command::run(Command::new("ldd").arg(path))?;
    // `libc.so.6 => /lib/libc.so.6 (0x7f…)`. The line of the loader has only a path.
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let data = fs::read(library).with_context(|| format!("reading {library}"))?;
        files.add_file(library.trim_start_matches('/'), &data)?;
    }
    Ok(())
}

fn strip_symbols(path: &Path) -> Result<Vec<u8>> {
    let to = tempfile::NamedTempFile::new()?;
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(to.path()).arg(path);
    let output = command::run_unchecked(&mut strip)?;
    ensure!(output.status.success(), "`strip` cannot read {}", path.display());
    fs::read(to.path()).with_context(|| format!("reading {}", path.display()))
}

fn find_program(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let administration = ["/usr/sbin", "/sbin"].map(Into::into);
    let directories = std::env::split_paths(&path).chain(administration);
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}
