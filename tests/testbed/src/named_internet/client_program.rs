//! A program in a sandbox, with a resolv.conf and a hosts file of the sandbox's own in the place of the
//! machine's.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use crate::network::NetworkNamespace;

/// The resolver's configuration, among a client's files.
const RESOLV_CONF: &str = "resolv.conf";
/// The hosts file of programs that need no other, among a client's files.
const HOSTS_FILE: &str = "hosts";
/// Puts two files in the place of the machine's, and becomes the rest of the command line.
const MOUNT_AND_EXEC: &str = "mount --bind \"$1\" /etc/resolv.conf \
                                && mount --bind \"$2\" /etc/hosts && shift 2 && exec \"$@\"";

/// Writes what programs need into the directory of a client's files.
pub(super) fn write_client_files(files: &Path) -> Result<()> {
    fs::write(files.join(RESOLV_CONF), "nameserver 8.8.8.8\noptions timeout:2 attempts:1\n")?;
    fs::write(files.join(HOSTS_FILE), "127.0.0.1 localhost\n")?;
    Ok(())
}

/// Will run `program` inside a namespace; `files` are a client's. Arguments follow.
pub fn client_command(inside: &NetworkNamespace, files: &Path, program: &Path) -> Result<Command> {
    client_command_with_hosts(inside, files, &files.join(HOSTS_FILE), program)
}

/// The same with another hosts file.
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
