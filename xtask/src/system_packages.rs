//! Installs the programs that the demo, the tests and the benchmark call, each only for its
//! callers.

use std::fmt;

use anyhow::Result;

use crate::{apt_get, host, process, quiet_services::QuietServices};

/// A verb that calls programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolCaller {
    Demo,
    Tests,
    Bench,
}

use ToolCaller::{Bench, Demo, Tests};

struct SystemTool {
    /// A program, or the full path of a file.
    program: &'static str,
    /// The Debian package that contains it.
    package: &'static str,
    purpose: &'static str,
    callers: &'static [ToolCaller],
}

/// A full path, since a module is not a program on the path.
const NGINX_STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A full path, since plugins of CNI are not on the path.
const CNI_PTP_PLUGIN: &str = "/usr/lib/cni/ptp";

/// A full path, since what Podman calls is not on the path.
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// A module of Debian's Python.
const GRPC_MODULE: &str = "/usr/lib/python3/dist-packages/grpc/__init__.py";

const SYSTEM_TOOLS: [SystemTool; 27] = [
    SystemTool {
        program: "ip",
        package: "iproute2",
        purpose: "makes interfaces, routes and namespaces",
        callers: &[Demo, Tests, Bench],
    },
    SystemTool {
        program: "curl",
        package: "curl",
        purpose: "is the HTTP client in a sandbox",
        callers: &[Demo, Tests],
    },
    SystemTool {
        program: "unshare",
        package: "util-linux",
        purpose: "gives curl a hosts file of its own",
        callers: &[Demo, Tests],
    },
    SystemTool {
        program: "ping",
        package: "iputils-ping",
        purpose: "sends ICMP from a sandbox",
        callers: &[Tests],
    },
    SystemTool {
        program: "dnsmasq",
        package: "dnsmasq-base",
        purpose: "is the agent's DNS server",
        callers: &[Tests, Bench],
    },
    SystemTool {
        program: "nginx",
        package: "nginx",
        purpose: "is a site with HTTP/2, and a peer in the benchmark",
        callers: &[Tests, Bench],
    },
    SystemTool {
        program: "microsocks",
        package: "microsocks",
        purpose: "is a sandbox's SOCKS5 proxy",
        callers: &[Tests],
    },
    SystemTool {
        program: CNI_PTP_PLUGIN,
        package: "containernetworking-plugins",
        purpose: "makes a container's interface",
        callers: &[Tests],
    },
    SystemTool {
        program: "dockerd",
        package: "docker.io",
        purpose: "runs containers",
        callers: &[Tests],
    },
    SystemTool {
        program: "podman",
        package: "podman",
        purpose: "runs containers",
        callers: &[Tests],
    },
    SystemTool {
        program: NETAVARK,
        package: "netavark",
        purpose: "makes the network of Podman's containers",
        callers: &[Tests],
    },
    SystemTool {
        program: "crun",
        package: "crun",
        purpose: "calls the agent's hook",
        callers: &[Tests],
    },
    SystemTool {
        program: "runc",
        package: "runc",
        purpose: "calls the agent's hook",
        callers: &[Tests],
    },
    SystemTool {
        program: "chromium",
        package: "chromium",
        purpose: "opens a public URL as people do",
        callers: &[Tests],
    },
    SystemTool {
        program: "systemd-analyze",
        package: "systemd",
        purpose: "verifies the unit of the package",
        callers: &[Tests],
    },
    SystemTool {
        program: "busybox",
        package: "busybox-static",
        purpose: "is what guests consist of",
        callers: &[Tests],
    },
    SystemTool {
        program: "faketime",
        package: "faketime",
        purpose: "gives an agent a clock that jumps",
        callers: &[Tests],
    },
    SystemTool {
        program: "xz",
        package: "xz-utils",
        purpose: "unpacks the modules of a guest's kernel",
        callers: &[Tests],
    },
    SystemTool {
        program: "git",
        package: "git",
        purpose: "is cloned with, and serves repositories",
        callers: &[Tests],
    },
    SystemTool {
        program: "go",
        package: "golang-go",
        purpose: "gets a module through the egress proxy",
        callers: &[Tests],
    },
    SystemTool {
        program: "java",
        package: "openjdk-17-jdk-headless",
        purpose: "runs Java's HttpClient in a sandbox",
        callers: &[Tests],
    },
    SystemTool {
        program: GRPC_MODULE,
        package: "python3-grpcio",
        purpose: "calls gRPC services by public URLs, and is one",
        callers: &[Tests],
    },
    SystemTool {
        program: "promtool",
        package: "prometheus",
        purpose: "checks the metrics' format",
        callers: &[Tests],
    },
    SystemTool {
        program: "nft",
        package: "nftables",
        purpose: "makes the agent's guard on older kernels, and is a peer in the benchmark",
        callers: &[Tests, Bench],
    },
    SystemTool {
        program: NGINX_STREAM_MODULE,
        package: "libnginx-mod-stream",
        purpose: "lets nginx route by name",
        callers: &[Bench],
    },
    SystemTool {
        program: "haproxy",
        package: "haproxy",
        purpose: "is a peer in the benchmark",
        callers: &[Bench],
    },
    SystemTool {
        program: "wrk",
        package: "wrk",
        purpose: "loads the benchmark's servers",
        callers: &[Bench],
    },
];

/// Installs the missing programs that `caller` calls. If one cannot be installed, it is named, and
/// only its callers fail.
pub(crate) fn ensure_tools(caller: ToolCaller) -> Result<()> {
    let wanted = SYSTEM_TOOLS.iter().filter(|tool| tool.callers.contains(&caller));
    let missing: Vec<&SystemTool> = wanted.filter(|tool| !tool.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        process::report(&format!("{} is missing; it {}", tool.program, tool.purpose));
    }
    // Tests start their own servers inside their namespaces.
    let _quiet = QuietServices::install()?;
    let why = format!("{caller} {} them", if caller == Tests { "call" } else { "calls" });
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let Err(error) = apt_get::install_packages(&packages, &why) else { return Ok(()) };
    process::report(&format!("not all at once, so one by one: {error:#}"));
    for SystemTool { program, package, purpose, .. } in missing {
        if let Err(error) = apt_get::install_packages(&[package], &why) {
            process::report(&format!("{error:#}"));
            process::report(&format!(
                "{package} cannot be installed; {program} {purpose}: what calls it will fail"
            ));
        }
    }
    Ok(())
}

impl SystemTool {
    fn is_installed(&self) -> bool {
        host::find_program(self.program).is_some()
    }
}

impl fmt::Display for ToolCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Demo => "the demo",
            Tests => "tests",
            Bench => "the benchmark",
        })
    }
}
