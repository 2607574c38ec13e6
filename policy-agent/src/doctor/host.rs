//! Checks of the host: file systems, sysctls, and whether an agent is running.

use std::{os::unix::net::UnixStream, path::Path};

use nix::{
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::{AccessFlags, access},
};

use super::{DoctorFinding, read_sysctl};
use crate::{
    config::AgentConfig,
    dataplane::{GuardMethod, features::NETFILTER_LINKS, guard},
};

pub(crate) fn host_checks(config: &AgentConfig, socket: &Path) -> Vec<DoctorFinding> {
    vec![
        check_bpffs(&config.bpffs),
        check_state_dir(&config.state_dir),
        check_guard(config.dataplane.guard),
        check_syn_cookies(),
        check_time_wait(),
        check_agent(socket),
    ]
}

fn check_bpffs(directory: &Path) -> DoctorFinding {
    const WHAT: &str = "BPF file system";
    let nearest = nearest_existing(directory);
    match statfs(nearest) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => {
            DoctorFinding::ok(WHAT, format!("{}", nearest.display()))
        }
        Ok(_) => DoctorFinding::missing(
            WHAT,
            format!("{} is not on one", directory.display()),
            "mount -t bpf bpf /sys/fs/bpf, or give bpffs (--bpffs) another place",
        ),
        Err(error) => DoctorFinding::missing(
            WHAT,
            format!("{}: {error}", nearest.display()),
            "look as root; mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

fn check_state_dir(directory: &Path) -> DoctorFinding {
    const WHAT: &str = "state directory";
    let nearest = nearest_existing(directory);
    if access(nearest, AccessFlags::W_OK).is_ok() {
        return DoctorFinding::ok(WHAT, format!("{}", directory.display()));
    }
    DoctorFinding::missing(
        WHAT,
        format!("{} cannot be written", nearest.display()),
        "run it as root, or give state_dir (--state-dir) another place",
    )
}

/// What drops packets that came past the programs, and where.
fn check_guard(method: GuardMethod) -> DoctorFinding {
    const WHAT: &str = "guard";
    const INSTALL: &str = "install nftables";
    let elsewhere = "in other network namespaces and for ports of bridges";
    match (method, NETFILTER_LINKS.is_supported(), guard::is_nftables_usable()) {
        (GuardMethod::Off, ..) => DoctorFinding::degraded(
            WHAT,
            "off: nothing drops what comes past the programs",
            "dataplane.guard = \"auto\"",
        ),
        (GuardMethod::Auto, true, true) => {
            DoctorFinding::ok(WHAT, format!("BPF netfilter; nftables {elsewhere}"))
        }
        (GuardMethod::Auto, true, false) => {
            DoctorFinding::degraded(WHAT, format!("BPF netfilter; none {elsewhere}"), INSTALL)
        }
        (GuardMethod::Nftables, _, true) => DoctorFinding::ok(WHAT, "nftables"),
        (GuardMethod::Auto, false, true) => DoctorFinding::degraded(
            WHAT,
            "nftables: open for up to 2 s after others flush its tables",
            NETFILTER_LINKS.fix(),
        ),
        (_, _, false) => DoctorFinding::degraded(
            WHAT,
            "none: nothing drops what comes past the programs",
            INSTALL,
        ),
    }
}

/// The directory, or its nearest existing ancestor.
fn nearest_existing(directory: &Path) -> &Path {
    directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// When the accept queue is full, only SYN cookies let the proxy's clients connect during a flood.
fn check_syn_cookies() -> DoctorFinding {
    const WHAT: &str = "SYN cookies";
    match read_sysctl("net.ipv4.tcp_syncookies") {
        Some(0) => DoctorFinding::degraded(
            WHAT,
            "off: a sandbox that floods the egress proxy shuts itself out of it",
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        Some(_) => DoctorFinding::ok(WHAT, "on"),
        None => DoctorFinding::ok(WHAT, "not known to this kernel"),
    }
}

/// All sandboxes share the host's ports for connections from the egress proxy, so reusing those in
/// TIME-WAIT matters.
fn check_time_wait() -> DoctorFinding {
    const WHAT: &str = "ports in TIME_WAIT";
    match read_sysctl("net.ipv4.tcp_tw_reuse") {
        Some(1) => DoctorFinding::ok(WHAT, "used again"),
        _ => DoctorFinding::degraded(
            WHAT,
            "kept for a minute: one sandbox can use up the ports towards a name's address",
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
        ),
    }
}

fn check_agent(socket: &Path) -> DoctorFinding {
    const WHAT: &str = "agent";
    match UnixStream::connect(socket) {
        Ok(_) => DoctorFinding::ok(WHAT, format!("runs, on {}", socket.display())),
        Err(_) => DoctorFinding::ok(WHAT, format!("does not run on {}", socket.display())),
    }
}
