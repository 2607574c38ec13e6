//! The agent with a sandbox that may reach one name, and the DNS server that knows it.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    hello::{NAME, SERVER},
    process::{self, Process},
};
use crate::{
    agent::Agent,
    world::{Sandbox, World},
};

/// One of the internet's addresses.
const RESOLVER: &str = "8.8.8.8";

/// The agent, and what it asks.
pub struct Ours {
    agent: Agent,
    _resolver: Process,
}

impl Ours {
    /// Starts both, and has the sandbox judged by name.
    pub fn start(world: &World, sandbox: &Sandbox) -> Result<Self> {
        let resolver = resolver(world)?;
        let mut agent = Agent::configure(&format!(
            "[proxy]\nresolvers = [\"{RESOLVER}:53\"]\nmax_connections_per_sandbox = 20000\n"
        ))?;
        agent.start(&world.host)?;
        let network = json!({ "network": { "allowOut": [NAME], "denyOut": ["0.0.0.0/0"] } });
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        let answer = agent.request("PUT", &path, &sandbox.spec(&network).to_string())?;
        ensure!(answer.code < 300, "the agent refuses the sandbox: {}", answer.body);
        Ok(Self { agent, _resolver: resolver })
    }

    /// The agent's process.
    pub fn pids(&self) -> Vec<u32> {
        self.agent.pid().into_iter().collect()
    }

    /// The end of the agent's log.
    pub fn log(&self) -> String {
        self.agent.log()
    }
}

/// A server that has a zone of its own: an answer that there is no IPv6 address comes with how long
/// it may be kept, as it does from servers in the real internet.
fn resolver(world: &World) -> Result<Process> {
    let directory = process::directory("dnsmasq")?;
    let address = IpAddr::from(SERVER);
    let mut command = world.internet.command("dnsmasq")?;
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
    command.args(["--user=root", "--log-facility=-", "--bind-interfaces"]);
    command.arg(format!("--listen-address={RESOLVER}"));
    command.arg(format!("--auth-server=ns.{NAME},{RESOLVER}"));
    command.args([&format!("--auth-zone={NAME}"), "--auth-ttl=60"]);
    command.arg(format!("--host-record={NAME},{address}"));
    command.arg(format!("--pid-file={}", directory.path().join("pid").display()));
    Process::start(command, directory)
}
