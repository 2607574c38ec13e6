//! Checks of the privileges of this process.

use std::fs;

use nix::{
    sys::resource::{RLIM_INFINITY, Resource, getrlimit},
    unistd::geteuid,
};

use super::{DoctorFinding, read_sysctl};
use crate::dataplane::features::MAP_MEMORY_IN_CGROUP;

// From linux/capability.h.
const CAP_NET_ADMIN: u8 = 12;
const CAP_SYS_ADMIN: u8 = 21;
const CAP_PERFMON: u8 = 38;
const CAP_BPF: u8 = 39;

pub(crate) fn privilege_checks() -> Vec<DoctorFinding> {
    vec![check_capabilities(), check_memlock(), check_unprivileged_bpf()]
}

fn check_capabilities() -> DoctorFinding {
    const WHAT: &str = "privileges";
    let fix = "run it as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and, for sandboxes in \
                other network namespaces, CAP_SYS_ADMIN";
    let Some(effective) = effective_capabilities() else {
        return DoctorFinding::degraded(WHAT, "unknown: /proc/self/status may not be read", fix);
    };
    let has = |capability: u8| effective & (1 << capability) != 0;
    let required =
        [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON), ("CAP_NET_ADMIN", CAP_NET_ADMIN)];
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
    let has_or_includes = |(_, capability): &(&str, u8)| {
        has(*capability) || *capability != CAP_NET_ADMIN && has(CAP_SYS_ADMIN)
    };
    let missing: Vec<&str> = required
        .iter()
        .filter(|capability| !has_or_includes(capability))
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        return DoctorFinding::missing(WHAT, format!("without {}", missing.join(", ")), fix);
    }
    if !has(CAP_SYS_ADMIN) {
        let found = "without CAP_SYS_ADMIN: `netns` of sandboxes cannot be used";
        return DoctorFinding::degraded(WHAT, found, fix);
    }
    DoctorFinding::ok(WHAT, if geteuid().is_root() { "root" } else { "all that are needed" })
}

/// The effective capabilities as a bit set.
fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn check_memlock() -> DoctorFinding {
    const WHAT: &str = "memory for maps";
    if MAP_MEMORY_IN_CGROUP.is_supported() {
        return DoctorFinding::ok(WHAT, "accounted to the control group");
    }
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((RLIM_INFINITY, _)) => DoctorFinding::ok(WHAT, "without limit"),
        Ok((soft, _)) => DoctorFinding::degraded(
            WHAT,
            format!("RLIMIT_MEMLOCK is {soft} bytes; the agent tries to raise it"),
            "LimitMEMLOCK=infinity in its unit, or ulimit -l unlimited",
        ),
        Err(error) => DoctorFinding::degraded(WHAT, error.to_string(), "ulimit -l unlimited"),
    }
}

fn check_unprivileged_bpf() -> DoctorFinding {
    const WHAT: &str = "BPF of other users";
    match read_sysctl("kernel.unprivileged_bpf_disabled") {
        Some(0) => DoctorFinding::degraded(
            WHAT,
            "everyone may load BPF programs, which widens what can be attacked",
            "sysctl -w kernel.unprivileged_bpf_disabled=1",
        ),
        Some(_) => DoctorFinding::ok(WHAT, "off"),
        None => DoctorFinding::ok(WHAT, "not known to this kernel"),
    }
}
