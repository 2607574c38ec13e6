//! Checks of the kernel: its version and build options.

use std::{fs, path::Path};

use super::DoctorFinding;
use crate::dataplane::features::{
    CONTEXT_CAST, JIT, KernelFeature, LARGE_MAP_VALUES, LPM_TRIE_BATCH, OLDEST_SUPPORTED_KERNEL,
    SKB_TYPES, TCX, kernel_version, skb_layout,
};

/// What the agent can do without, and no other check looks at.
static REPORTED_WITH_VERSION: [&KernelFeature; 3] = [&TCX, &LPM_TRIE_BATCH, &CONTEXT_CAST];

pub(crate) fn kernel_checks() -> Vec<DoctorFinding> {
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
    let Some(release) = kernel_version::running_release() else {
        return DoctorFinding::degraded(WHAT, "unknown", TCX.fix());
    };
    match kernel_version::parse_release(&release) {
        Some(version) if version < OLDEST_SUPPORTED_KERNEL => {
            let (major, minor) = OLDEST_SUPPORTED_KERNEL;
            let fix = format!("run Linux {major}.{minor} or newer, best {} or newer", TCX.since);
            DoctorFinding::missing(WHAT, release, fix)
        }
        Some(_) => check_optional_features(WHAT, &release),
        None => DoctorFinding::degraded(WHAT, release, TCX.fix()),
    }
}

fn check_optional_features(what: &'static str, release: &str) -> DoctorFinding {
    let missing = REPORTED_WITH_VERSION.iter().filter(|feature| !feature.is_supported());
    let fallbacks: Vec<String> =
        missing.map(|feature| format!("no {}: {}", feature.name, feature.fallback)).collect();
    if fallbacks.is_empty() {
        return DoctorFinding::ok(what, format!("{release}: has tcx"));
    }
    DoctorFinding::degraded(what, format!("{release}: {}", fallbacks.join("; ")), TCX.fix())
}

fn check_btf() -> DoctorFinding {
    const WHAT: &str = "kernel types (BTF)";
    match skb_layout::kernel_skb_access() {
        Ok(_) => DoctorFinding::ok(WHAT, "there"),
        Err(error) => DoctorFinding::missing(WHAT, format!("{error:#}"), SKB_TYPES.fix()),
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
    if LARGE_MAP_VALUES.is_supported() {
        return DoctorFinding::ok(WHAT, "tables of up to 32 MiB");
    }
    let found = format!("no {}: {}", LARGE_MAP_VALUES.name, LARGE_MAP_VALUES.fallback);
    DoctorFinding::degraded(WHAT, found, LARGE_MAP_VALUES.fix())
}

fn check_jit() -> DoctorFinding {
    const WHAT: &str = "BPF compiler (JIT)";
    match JIT.probe() {
        Some(false) => DoctorFinding::degraded(
            WHAT,
            format!("off: {}", JIT.fallback),
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(true) => DoctorFinding::ok(WHAT, "on"),
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
