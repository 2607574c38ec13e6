//! Checks of the kernel: its version and build options.

use std::{fs, path::Path};

use nix::sys::utsname::uname;

use super::{DoctorFinding, read_sysctl};
use crate::dataplane;

/// The oldest kernel that the BPF programs support.
const MIN_VERSION: (u32, u32) = (5, 10);
/// Optional kernel features by the version that introduced them, with what the agent does without
/// them.
const FALLBACKS: [((u32, u32), &str); 3] = [
    ((6, 6), "no tcx: clsact filters are used"),
    ((5, 18), "no batches for arrays of maps: one call per sandbox of a change"),
    ((5, 13), "no batches for tries: one call per prefix"),
];

pub fn kernel_checks() -> Vec<DoctorFinding> {
    vec![
        check_version(),
        check_btf(),
        check_lockdown(),
        check_map_size(),
        check_jit(),
        check_namespaces(),
    ]
}

fn check_version() -> DoctorFinding {
    const WHAT: &str = "kernel";
    let Ok(name) = uname() else {
        return DoctorFinding::degraded(WHAT, "unknown", "run Linux 6.6 or newer");
    };
    let release = name.release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version < MIN_VERSION => {
            DoctorFinding::missing(WHAT, release, "run Linux 5.10 or newer, best 6.6 or newer")
        }
        Some(version) => match missing_features(version).as_slice() {
            [] => DoctorFinding::ok(WHAT, format!("{release}: has tcx")),
            fallbacks => {
                let found = format!("{release}: {}", fallbacks.join("; "));
                DoctorFinding::degraded(WHAT, found, "run Linux 6.6 or newer")
            }
        },
        None => DoctorFinding::degraded(WHAT, release, "run Linux 6.6 or newer"),
    }
}

fn missing_features(version: (u32, u32)) -> Vec<&'static str> {
    let fallbacks = FALLBACKS.iter().filter(|(since, _)| version < *since);
    fallbacks.map(|(_, fallback)| *fallback).collect()
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn check_btf() -> DoctorFinding {
    const WHAT: &str = "kernel types (BTF)";
    match dataplane::probe_skb_layout() {
        Ok(()) => DoctorFinding::ok(WHAT, "there"),
        Err(error) => DoctorFinding::missing(
            WHAT,
            format!("{error:#}"),
            "run a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

/// The BPF programs read kernel structures, which lockdown in confidentiality mode forbids.
fn check_lockdown() -> DoctorFinding {
    const WHAT: &str = "kernel lockdown";
    // The active mode is in brackets. Without the file, there is no lockdown.
    let state = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if state.contains("[confidentiality]") {
        let fix = "boot with lockdown=integrity, or without";
        return DoctorFinding::missing(
            WHAT,
            "confidentiality: programs cannot read a packet's fields",
            fix,
        );
    }
    DoctorFinding::ok(WHAT, if state.contains("[integrity]") { "integrity" } else { "none" })
}

fn check_map_size() -> DoctorFinding {
    const WHAT: &str = "large policies";
    if dataplane::supports_huge_poptries() {
        return DoctorFinding::ok(WHAT, "tables of up to 32 MiB");
    }
    DoctorFinding::degraded(
        WHAT,
        "tables of up to 4 MiB: what does not fit (some 100 000 prefixes) is in a slower trie",
        "run Linux 6.1 or newer",
    )
}

fn check_jit() -> DoctorFinding {
    const WHAT: &str = "BPF compiler (JIT)";
    match read_sysctl("net.core.bpf_jit_enable") {
        Some(0) => DoctorFinding::degraded(
            WHAT,
            "off: packets are judged many times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => DoctorFinding::ok(WHAT, "on"),
        // The kernel shows the file only in the initial network namespace, and only to root.
        None => DoctorFinding::ok(WHAT, "not shown here"),
    }
}

fn check_namespaces() -> DoctorFinding {
    const WHAT: &str = "network namespaces";
    if Path::new("/proc/self/ns/net").exists() {
        return DoctorFinding::ok(WHAT, "there");
    }
    DoctorFinding::degraded(
        WHAT,
        "not there: `netns` of sandboxes cannot be used",
        "run a kernel with CONFIG_NET_NS=y, and mount /proc",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_all_sorts_of_ends() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("6.6"), Some((6, 6)));
        assert_eq!(parse_release("5.15.0-1084-aws"), Some((5, 15)));
        assert_eq!(parse_release("linux"), None);
    }

    #[test]
    fn older_kernels_lack_more() {
        assert_eq!(missing_features((6, 6)), [""; 0]);
        assert_eq!(missing_features((6, 5)).len(), 1);
        assert_eq!(missing_features((5, 10)).len(), 3);
    }
}
