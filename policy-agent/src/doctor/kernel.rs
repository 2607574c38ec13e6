//! The kernel: its version, and what it was built with.

use std::path::Path;

use nix::sys::utsname::uname;

use super::{Finding, sysctl};

/// BPF ring buffers.
const OLDEST: (u32, u32) = (5, 8);
/// tcx links, which can be pinned and replaced in one step.
const TCX: (u32, u32) = (6, 6);

pub fn examine() -> Vec<Finding> {
    vec![version(), btf(), jit(), namespaces()]
}

fn version() -> Finding {
    const WHAT: &str = "kernel";
    let Ok(name) = uname() else {
        return Finding::degraded(WHAT, "unknown", "run Linux 6.6 or newer");
    };
    let release = name.release().to_string_lossy().into_owned();
    match parse(&release) {
        Some(version) if version < OLDEST => {
            Finding::missing(WHAT, release, "run Linux 5.8 or newer, best 6.6 or newer")
        }
        Some(version) if version < TCX => Finding::degraded(
            WHAT,
            format!("{release}: no tcx, so clsact filters are used"),
            "run Linux 6.6 or newer",
        ),
        Some(_) => Finding::ok(WHAT, format!("{release}: has tcx")),
        None => Finding::degraded(WHAT, release, "run Linux 6.6 or newer"),
    }
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf() -> Finding {
    const WHAT: &str = "kernel types (BTF)";
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Finding::ok(WHAT, "there");
    }
    Finding::degraded(
        WHAT,
        "not there: tools like bpftool show less of the programs",
        "run a kernel with CONFIG_DEBUG_INFO_BTF=y",
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
}
