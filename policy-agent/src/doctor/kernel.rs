//! The kernel: its version, and what it was built with.

use std::{fs, path::Path};

use nix::sys::utsname::uname;

use super::{Finding, sysctl};
use crate::dataplane;

/// The oldest that the programs were written for.
const OLDEST: (u32, u32) = (5, 10);
/// Since when there is what the agent can do without, and what it does then.
const WITHOUT: [((u32, u32), &str); 3] = [
    ((6, 6), "no tcx: clsact filters are used"),
    ((5, 18), "no batches for arrays of maps: one call per sandbox of a change"),
    ((5, 13), "no batches for tries: one call per prefix"),
];

pub fn examine() -> Vec<Finding> {
    vec![version(), btf(), lockdown(), tables(), jit(), namespaces()]
}

fn version() -> Finding {
    const WHAT: &str = "kernel";
    let Ok(name) = uname() else {
        return Finding::degraded(WHAT, "unknown", "run Linux 6.6 or newer");
    };
    let release = name.release().to_string_lossy().into_owned();
    match parse(&release) {
        Some(version) if version < OLDEST => {
            Finding::missing(WHAT, release, "run Linux 5.10 or newer, best 6.6 or newer")
        }
        Some(version) => match without(version).as_slice() {
            [] => Finding::ok(WHAT, format!("{release}: has tcx")),
            lacks => {
                let found = format!("{release}: {}", lacks.join("; "));
                Finding::degraded(WHAT, found, "run Linux 6.6 or newer")
            }
        },
        None => Finding::degraded(WHAT, release, "run Linux 6.6 or newer"),
    }
}

fn without(version: (u32, u32)) -> Vec<&'static str> {
    let lacks = WITHOUT.iter().filter(|(since, _)| version < *since);
    lacks.map(|(_, without)| *without).collect()
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf() -> Finding {
    const WHAT: &str = "kernel types (BTF)";
    match dataplane::knows_packets() {
        Ok(()) => Finding::ok(WHAT, "there"),
        Err(error) => Finding::missing(
            WHAT,
            format!("{error:#}"),
            "run a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

/// Programs read a few of the kernel's own fields, which its strictest lockdown does not allow.
fn lockdown() -> Finding {
    const WHAT: &str = "kernel lockdown";
    // One word of all is in brackets. Where there is no such file, there is no lockdown.
    let state = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if state.contains("[confidentiality]") {
        let mend = "boot with lockdown=integrity, or without";
        return Finding::missing(
            WHAT,
            "confidentiality: programs cannot read a packet's fields",
            mend,
        );
    }
    Finding::ok(WHAT, if state.contains("[integrity]") { "integrity" } else { "none" })
}

fn tables() -> Finding {
    const WHAT: &str = "large policies";
    if dataplane::has_huge_tables() {
        return Finding::ok(WHAT, "tables of up to 32 MiB");
    }
    Finding::degraded(
        WHAT,
        "tables of up to 4 MiB: what does not fit (some 100 000 prefixes) is in a slower trie",
        "run Linux 6.1 or newer",
    )
}

fn jit() -> Finding {
    const WHAT: &str = "BPF compiler (JIT)";
    match sysctl("net.core.bpf_jit_enable") {
        Some(0) => Finding::degraded(
            WHAT,
            "off: packets are judged many times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok(WHAT, "on"),
        // The kernel shows it in the machine's first network namespace, and to root.
        None => Finding::ok(WHAT, "not shown here"),
    }
}

fn namespaces() -> Finding {
    const WHAT: &str = "network namespaces";
    if Path::new("/proc/self/ns/net").exists() {
        return Finding::ok(WHAT, "there");
    }
    Finding::degraded(
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
        assert_eq!(parse("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse("6.6"), Some((6, 6)));
        assert_eq!(parse("5.15.0-1084-aws"), Some((5, 15)));
        assert_eq!(parse("linux"), None);
    }

    #[test]
    fn older_kernels_lack_more() {
        assert_eq!(without((6, 6)), [""; 0]);
        assert_eq!(without((6, 5)).len(), 1);
        assert_eq!(without((5, 10)).len(), 3);
    }
}
