//! What this process may do.

use std::fs;

use nix::{
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit},
        utsname::uname,
    },
    unistd::geteuid,
};

use super::{Finding, sysctl};

// capability.h
const NET_ADMIN: u8 = 12;
const SYS_ADMIN: u8 = 21;
const PERFMON: u8 = 38;
const BPF: u8 = 39;

pub fn examine() -> Vec<Finding> {
    vec![capabilities(), memlock(), unprivileged()]
}

fn capabilities() -> Finding {
    const WHAT: &str = "privileges";
    let mend = "run it as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and, for sandboxes in \
                other network namespaces, CAP_SYS_ADMIN";
    let Some(effective) = effective() else {
        return Finding::degraded(WHAT, "unknown: /proc/self/status may not be read", mend);
    };
    let has = |capability: u8| effective & (1 << capability) != 0;
    let named = [("CAP_BPF", BPF), ("CAP_PERFMON", PERFMON), ("CAP_NET_ADMIN", NET_ADMIN)];
    // CAP_SYS_ADMIN includes the first two.
    let has_or_includes = |(_, capability): &(&str, u8)| {
        has(*capability) || *capability != NET_ADMIN && has(SYS_ADMIN)
    };
    let lacking: Vec<&str> =
        named.iter().filter(|it| !has_or_includes(it)).map(|(name, _)| *name).collect();
    if !lacking.is_empty() {
        return Finding::missing(WHAT, format!("without {}", lacking.join(", ")), mend);
    }
    if !has(SYS_ADMIN) {
        let found = "without CAP_SYS_ADMIN: `netns` of sandboxes cannot be used";
        return Finding::degraded(WHAT, found, mend);
    }
    Finding::ok(WHAT, if geteuid().is_root() { "root" } else { "all that are needed" })
}

/// The effective capabilities, one bit each.
fn effective() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn memlock() -> Finding {
    const WHAT: &str = "memory for maps";
    let accounted = uname().is_ok_and(|name| {
        let release = name.release().to_string_lossy().into_owned();
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 11)
    });
    if accounted {
        return Finding::ok(WHAT, "accounted to the control group");
    }
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((RLIM_INFINITY, _)) => Finding::ok(WHAT, "without limit"),
        Ok((soft, _)) => Finding::degraded(
            WHAT,
            format!("RLIMIT_MEMLOCK is {soft} bytes; the agent tries to raise it"),
            "LimitMEMLOCK=infinity in its unit, or ulimit -l unlimited",
        ),
        Err(error) => Finding::degraded(WHAT, error.to_string(), "ulimit -l unlimited"),
    }
}

fn unprivileged() -> Finding {
    const WHAT: &str = "BPF of other users";
    match sysctl("kernel.unprivileged_bpf_disabled") {
        Some(0) => Finding::degraded(
            WHAT,
            "everyone may load BPF programs, which widens what can be attacked",
            "sysctl -w kernel.unprivileged_bpf_disabled=1",
        ),
        Some(_) => Finding::ok(WHAT, "off"),
        None => Finding::ok(WHAT, "not known to this kernel"),
    }
}
