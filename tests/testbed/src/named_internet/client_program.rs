//! Runs a program in a sandbox, with the sandbox's own resolv.conf and hosts file instead of the
//! machine's.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use crate::network::NetworkNamespace;

/// The resolver configuration in a client's directory.
const RESOLV_CONF: &str = "resolv.conf";
/// The default hosts file in a client's directory.
const HOSTS_FILE: &str = "hosts";
/// Mounts two files over the machine's, then executes the rest of the command line.
const MOUNT_AND_EXEC: &str = "mount --bind \"$1\" /etc/resolv.conf \
                                && mount --bind \"$2\" /etc/hosts && shift 2 && exec \"$@\"";

/// Writes the files that programs need into a client's directory. `hosts` are lines of the hosts file
/// besides that of localhost.
pub fn write_client_files(files: &Path, hosts: &str) -> Result<()> {
    fs::write(files.join(RESOLV_CONF), "nameserver 8.8.8.8\noptions timeout:2 attempts:1\n")?;
    fs::write(files.join(HOSTS_FILE), format!("127.0.0.1 localhost\n{hosts}"))?;
    Ok(())
}

/// Returns a command that runs `program` inside a namespace, without arguments. `files` is a
/// client's directory.
pub fn client_command(inside: &NetworkNamespace, files: &Path, program: &Path) -> Result<Command> {
    client_command_with_hosts(inside, files, &files.join(HOSTS_FILE), program)
}

/// Like [`client_command`], with another hosts file.
pub(super) fn client_command_with_hosts(
    inside: &NetworkNamespace,
    files: &Path,
    hosts: &Path,
    program: &Path,
) -> Result<Command> {
    let mut unshare = inside.command("unshare")?;
    unshare.args(["--mount", "sh", "-c", MOUNT_AND_EXEC, "sh"]);
    unshare.arg(files.join(RESOLV_CONF)).arg(hosts).arg(program);
    Ok(unshare)
}
