//! The programs which tests, demo and benchmark call.

use anyhow::Result;

use crate::{apt, host, quiet_services::QuietServices, step};

struct Tool {
    /// A program, or the full path of a file.
    program: &'static str,
    /// Debian's package of it.
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tool; 16] = [
    Tool { program: "ip", package: "iproute2", why: "makes interfaces, routes and namespaces" },
    Tool { program: "curl", package: "curl", why: "plays the HTTP client in a sandbox" },
    Tool { program: "ping", package: "iputils-ping", why: "sends ICMP from a sandbox" },
    Tool { program: "nft", package: "nftables", why: "is what the benchmark compares with" },
    Tool { program: "unshare", package: "util-linux", why: "gives curl a hosts file of its own" },
    Tool { program: "dnsmasq", package: "dnsmasq-base", why: "plays the agent's DNS server" },
    Tool {
        program: "nginx",
        package: "nginx",
        why: "plays a site with HTTP/2, and is compared with",
    },
    Tool { program: NGINX_STREAM, package: "libnginx-mod-stream", why: "lets nginx look at names" },
    Tool { program: "haproxy", package: "haproxy", why: "is what the benchmark compares with" },
    Tool { program: "microsocks", package: "microsocks", why: "plays a sandbox's SOCKS5 proxy" },
    Tool { program: "chromium", package: "chromium", why: "opens a public URL as people do" },
    Tool { program: "wrk", package: "wrk", why: "asks as much as the benchmark's servers bear" },
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", why: "runs real guests" },
    Tool { program: "busybox", package: "busybox-static", why: "is what real guests consist of" },
    Tool { program: "faketime", package: "faketime", why: "gives an agent a clock that jumps" },
    Tool { program: "xz", package: "xz-utils", why: "unpacks the modules of a guest's kernel" },
];

/// A module is no program on the path.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

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
    // Tests start servers themselves, where nobody but them can reach these.
    let _quiet = QuietServices::on_this_machine()?;
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    apt::install(&packages, "tests, demo and benchmark call them")
}
