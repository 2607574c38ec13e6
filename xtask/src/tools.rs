//! The programs that the demo, the tests and the benchmark call, each installed only for those that
//! call it.

use std::fmt;

use anyhow::Result;

use crate::{apt, host, quiet_services::QuietServices, step};

/// What calls programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Demo,
    Tests,
    Bench,
}

use Caller::{Bench, Demo, Tests};

struct Tool {
    /// A program, or the full path of a file.
    program: &'static str,
    /// Debian's package of it.
    package: &'static str,
    why: &'static str,
    callers: &'static [Caller],
}

/// A module is no program on the path.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

const TOOLS: [Tool; 19] = [
    Tool {
        program: "ip",
        package: "iproute2",
        why: "makes interfaces, routes and namespaces",
        callers: &[Demo, Tests, Bench],
    },
    Tool {
        program: "curl",
        package: "curl",
        why: "is the HTTP client in a sandbox",
        callers: &[Demo, Tests],
    },
    Tool {
        program: "unshare",
        package: "util-linux",
        why: "gives curl a hosts file of its own",
        callers: &[Demo, Tests],
    },
    Tool {
        program: "ping",
        package: "iputils-ping",
        why: "sends ICMP from a sandbox",
        callers: &[Tests],
    },
    Tool {
        program: "dnsmasq",
        package: "dnsmasq-base",
        why: "is the agent's DNS server",
        callers: &[Tests, Bench],
    },
    Tool {
        program: "nginx",
        package: "nginx",
        why: "is a site with HTTP/2, and a peer in the benchmark",
        callers: &[Tests, Bench],
    },
    Tool {
        program: "microsocks",
        package: "microsocks",
        why: "is a sandbox's SOCKS5 proxy",
        callers: &[Tests],
    },
    Tool {
        program: "chromium",
        package: "chromium",
        why: "opens a public URL as people do",
        callers: &[Tests],
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
        why: "is what guests consist of",
        callers: &[Tests],
    },
    Tool {
        program: "faketime",
        package: "faketime",
        why: "gives an agent a clock that jumps",
        callers: &[Tests],
    },
    Tool {
        program: "xz",
        package: "xz-utils",
        why: "unpacks the modules of a guest's kernel",
        callers: &[Tests],
    },
    Tool {
        program: "git",
        package: "git",
        why: "is cloned with, and serves repositories",
        callers: &[Tests],
    },
    Tool {
        program: "go",
        package: "golang-go",
        why: "gets a module through the egress proxy",
        callers: &[Tests],
    },
    Tool {
        program: "java",
        package: "openjdk-17-jdk-headless",
        why: "runs Java's HttpClient in a sandbox",
        callers: &[Tests],
    },
    Tool {
        program: "promtool",
        package: "prometheus",
        why: "checks the metrics' format",
        callers: &[Tests],
    },
    Tool {
        program: "nft",
        package: "nftables",
        why: "is a peer in the benchmark",
        callers: &[Bench],
    },
    Tool {
        program: NGINX_STREAM,
        package: "libnginx-mod-stream",
        why: "lets nginx route by name",
        callers: &[Bench],
    },
    Tool {
        program: "haproxy",
        package: "haproxy",
        why: "is a peer in the benchmark",
        callers: &[Bench],
    },
    Tool {
        program: "wrk",
        package: "wrk",
        why: "loads the benchmark's servers",
        callers: &[Bench],
    },
];

/// Installs what is missing of the programs that `caller` calls. What cannot be installed is named,
/// and stops only what calls it.
pub fn ensure(caller: Caller) -> Result<()> {
    let wanted = TOOLS.iter().filter(|tool| tool.callers.contains(&caller));
    let missing: Vec<&Tool> = wanted.filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        step::say(&format!("{} is missing; it {}", tool.program, tool.why));
    }
    // Tests start servers themselves, where nobody but them can reach these.
    let _quiet = QuietServices::on_this_machine()?;
    let why = format!("{caller} {} them", if caller == Tests { "call" } else { "calls" });
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let Err(error) = apt::install(&packages, &why) else { return Ok(()) };
    step::say(&format!("not all at once, so one by one: {error:#}"));
    for Tool { program, package, why: purpose, .. } in missing {
        if let Err(error) = apt::install(&[package], &why) {
            step::say(&format!("{error:#}"));
            step::say(&format!(
                "{package} cannot be installed; {program} {purpose}: what calls it will fail"
            ));
        }
    }
    Ok(())
}

impl Tool {
    fn is_there(&self) -> bool {
        host::find(self.program).is_some()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Demo => "the demo",
            Tests => "tests",
            Bench => "the benchmark",
        })
    }
}
