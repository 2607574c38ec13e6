//! The way past the host's TC programs that a container has if it administers its own network.

use std::process::Command;

use anyhow::Result;

use super::{NetworkNamespace, command, sandbox::SANDBOX_INTERFACE};

/// The name of the device that marks packets to skip TC.
const IFB_DEVICE: &str = "ifb0";
/// With as many queues, hardly a packet leaves the device from queue 0.
const IFB_QUEUES: u32 = 64;
/// A classic BPF program that matches packets of queue 0 (`SKF_AD_QUEUE` of linux/filter.h).
const QUEUE_IS_ZERO: &str = "4,32 0 0 4294963224,21 0 1 0,6 0 0 4294967295,6 0 0 0";

/// Makes the kernel skip the host's TC programs for nearly all packets of a sandbox.
///
/// `ifb` lets each packet skip the next TC action that it meets. A packet comes to the sandbox's
/// interface twice. At first it has queue 0, and goes to `ifb`. Then it has one of the queues of
/// `ifb`, so it meets no action before the host's end of the veth.
///
/// # Errors
/// The kernel refuses a device, a filter or an action.
pub fn bypass_host_tc(sandbox: &NetworkNamespace) -> Result<()> {
    sandbox.ip_batch(&format!(
        "link add {IFB_DEVICE} numtxqueues {IFB_QUEUES} type ifb
         link set {IFB_DEVICE} up"
    ))?;
    run_tc(sandbox, &["qdisc", "add", "dev", SANDBOX_INTERFACE, "clsact"])?;
    let filter = ["filter", "add", "dev", SANDBOX_INTERFACE, "egress", "protocol", "all"];
    let program = ["prio", "1", "bpf", "bytecode", QUEUE_IS_ZERO];
    let action = ["action", "mirred", "egress", "redirect", "dev", IFB_DEVICE];
    run_tc(sandbox, &[&filter[..], &program, &action].concat())
}

/// Ends the bypass.
///
/// # Errors
/// There is none.
pub fn end_bypass(sandbox: &NetworkNamespace) -> Result<()> {
    run_tc(sandbox, &["qdisc", "del", "dev", SANDBOX_INTERFACE, "clsact"])?;
    sandbox.ip_batch(&format!("link del {IFB_DEVICE}"))
}

fn run_tc(sandbox: &NetworkNamespace, arguments: &[&str]) -> Result<()> {
    let mut tc: Command = sandbox.command("tc")?;
    command::run(tc.args(arguments)).map(|_| ())
}
