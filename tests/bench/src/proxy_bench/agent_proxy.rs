//! The agent, sandboxes that may reach one name, and the DNS server for that name.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    bench_process::BenchProcess,
    wire_protocol::{SERVER_NAME, SERVER_V4},
};
use policy_testbed::{
    agent::AgentProcess,
    network::{Sandbox, TestNetwork, unique_directory},
};

/// One of the internet's addresses.
const RESOLVER_ADDRESS: &str = "8.8.8.8";

/// The agent and its DNS server.
pub(crate) struct AgentProxy {
    agent: AgentProcess,
    _resolver: BenchProcess,
}

impl AgentProxy {
    /// Starts both. `config` follows the section `[proxy]` of the agent's configuration.
    pub(crate) fn start(world: &TestNetwork, config: &str) -> Result<Self> {
        let resolver = start_resolver(world)?;
        let mut agent = AgentProcess::configure(&format!(
            "[proxy]\nresolvers = [\"{RESOLVER_ADDRESS}:53\"]\nmax_connections_per_sandbox = 20000\n{config}"
        ))?;
        agent.start(&world.host)?;
        Ok(Self { agent, _resolver: resolver })
    }

    /// Lets a sandbox connect to the server by its name, under these `network.rules`.
    pub(crate) fn add_sandbox(&self, sandbox: &Sandbox, rules: &Value) -> Result<()> {
        let network = json!({ "network": {
            "allowOut": [SERVER_NAME], "denyOut": ["0.0.0.0/0"], "rules": rules,
        } });
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        let answer =
            self.agent.request("PUT", &path, &sandbox.sandbox_spec(&network).to_string())?;
        ensure!(answer.status < 300, "the agent refuses the sandbox: {}", answer.body);
        Ok(())
    }

    /// The authority (PEM) of a sandbox with rules.
    pub(crate) fn authority_of(&self, sandbox: &Sandbox) -> Result<String> {
        let path = format!("/agent/v1/sandboxes/{}/ca", sandbox.id);
        let answer = self.agent.request("GET", &path, "")?;
        ensure!(answer.status == 200, "the agent has no authority: {}", answer.body);
        Ok(answer.body)
    }

    /// The agent's process ID.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.agent.pid().into_iter().collect()
    }

    /// The end of the agent's log.
    pub(crate) fn log(&self) -> String {
        self.agent.log_tail()
    }
}

/// Starts a server that is authoritative for a zone: its negative responses for IPv6 addresses
/// carry a TTL, as those of real servers do.
fn start_resolver(world: &TestNetwork) -> Result<BenchProcess> {
    let directory = unique_directory("dnsmasq")?;
    let address = IpAddr::from(SERVER_V4);
    let mut command = world.internet.command("dnsmasq")?;
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
    command.args(["--user=root", "--log-facility=-", "--bind-interfaces"]);
    command.arg(format!("--listen-address={RESOLVER_ADDRESS}"));
    command.arg(format!("--auth-server=ns.{SERVER_NAME},{RESOLVER_ADDRESS}"));
    command.args([&format!("--auth-zone={SERVER_NAME}"), "--auth-ttl=60"]);
    command.arg(format!("--host-record={SERVER_NAME},{address}"));
    command.arg(format!("--pid-file={}", directory.path().join("pid").display()));
    BenchProcess::start(command, directory)
}
