//! The host: file systems, sysctls, and whether an agent runs already.

use std::{os::unix::net::UnixStream, path::Path};

use nix::{
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::{AccessFlags, access},
};

use super::{Finding, sysctl};
use crate::config::Config;

pub fn examine(config: &Config, socket: &Path) -> Vec<Finding> {
    vec![
        bpffs(&config.bpffs),
        state_dir(&config.state_dir),
        syn_cookies(),
        time_wait(),
        agent(socket),
    ]
}

fn bpffs(directory: &Path) -> Finding {
    const WHAT: &str = "BPF file system";
    let nearest = existing(directory);
    match statfs(nearest) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => {
            Finding::ok(WHAT, format!("{}", nearest.display()))
        }
        Ok(_) => Finding::missing(
            WHAT,
            format!("{} is not on one", directory.display()),
            "mount -t bpf bpf /sys/fs/bpf, or give bpffs (--bpffs) another place",
        ),
        Err(error) => Finding::missing(
            WHAT,
            format!("{}: {error}", nearest.display()),
            "look as root; mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

fn state_dir(directory: &Path) -> Finding {
    const WHAT: &str = "state directory";
    let nearest = existing(directory);
    if access(nearest, AccessFlags::W_OK).is_ok() {
        return Finding::ok(WHAT, format!("{}", directory.display()));
    }
    Finding::missing(
        WHAT,
        format!("{} cannot be written", nearest.display()),
        "run it as root, or give state_dir (--state-dir) another place",
    )
}

/// The directory, or the nearest one above it that there is.
fn existing(directory: &Path) -> &Path {
    directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Behind a full queue, only they tell the proxy's clients from a flood.
fn syn_cookies() -> Finding {
    const WHAT: &str = "SYN cookies";
    match sysctl("net.ipv4.tcp_syncookies") {
        Some(0) => Finding::degraded(
            WHAT,
            "off: a sandbox that floods the egress proxy shuts itself out of it",
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        Some(_) => Finding::ok(WHAT, "on"),
        None => Finding::ok(WHAT, "not known to this kernel"),
    }
}

/// All sandboxes share the host's ports on the way out of the egress proxy.
fn time_wait() -> Finding {
    const WHAT: &str = "ports in TIME_WAIT";
    match sysctl("net.ipv4.tcp_tw_reuse") {
        Some(1) => Finding::ok(WHAT, "used again"),
        _ => Finding::degraded(
            WHAT,
            "kept for a minute: one sandbox can use up the ports towards a name's address",
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
        ),
    }
}

fn agent(socket: &Path) -> Finding {
    const WHAT: &str = "agent";
    match UnixStream::connect(socket) {
        Ok(_) => Finding::ok(WHAT, format!("runs, on {}", socket.display())),
        Err(_) => Finding::ok(WHAT, format!("does not run on {}", socket.display())),
    }
}
