//! The programs which tests, demo and benchmark call.

use anyhow::Result;

use crate::{apt, host, step};

struct Tool {
    program: &'static str,
    /// Debian's package of it.
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tool; 4] = [
    Tool { program: "ip", package: "iproute2", why: "makes interfaces, routes and namespaces" },
    Tool { program: "curl", package: "curl", why: "plays the HTTP client in a sandbox" },
    Tool { program: "ping", package: "iputils-ping", why: "sends ICMP from a sandbox" },
    Tool { program: "nft", package: "nftables", why: "is what the benchmark compares with" },
];

/// Installs those that are missing.
pub fn ensure() -> Result<()> {
    let missing: Vec<&Tool> =
        TOOLS.iter().filter(|tool| host::find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        step::say(&format!("{} is missing; it {}", tool.program, tool.why));
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    apt::install(&packages, "tests, demo and benchmark call them")
}
