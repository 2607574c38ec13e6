//! A sandbox, a server in the internet, and a proxy between them. Each setup has its own test
//! network, so that all setups exist at once and can be measured alternately.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    agent_proxy::AgentProxy, bench_process::BenchProcess, bench_server::BenchServer, proxy_peers,
    wire_protocol,
};
use policy_testbed::{
    network::{NetworkNamespace, Sandbox, TestNetwork},
    wait::WAIT_LIMIT,
};

/// The component between sandbox and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyVariant {
    /// The host's routing.
    Direct,
    /// The agent.
    Agent,
    /// HAProxy.
    HaProxy,
    /// HAProxy with larger pipes.
    HaProxyLarge,
    /// nginx.
    Nginx,
    /// nginx with larger buffers.
    NginxLarge,
}

impl ProxyVariant {
    /// Returns whether it differs from another variant only for bulk transfers.
    pub(crate) fn is_bulk_only(self) -> bool {
        matches!(self, Self::HaProxyLarge | Self::NginxLarge)
    }

    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Agent => "ours",
            Self::HaProxy => "HAProxy",
            Self::HaProxyLarge => "HAProxy, pipes of 1 MiB",
            Self::Nginx => "nginx",
            Self::NginxLarge => "nginx, buffers of 256 KiB",
        }
    }
}

/// The running proxy.
enum ProxyRelay {
    Direct,
    Agent(AgentProxy),
    Peer(BenchProcess),
}

/// One setup. Fields are dropped in this order.
pub(crate) struct ProxySetup {
    /// The component that it measures.
    pub(crate) variant: ProxyVariant,
    relay: ProxyRelay,
    /// The destination of the connections.
    pub(crate) server: BenchServer,
    /// The source of the connections.
    pub(crate) sandbox: Sandbox,
    /// The ClientHello that starts each connection.
    pub(crate) hello: Arc<[u8]>,
    _network: TestNetwork,
}

impl ProxySetup {
    /// Builds a setup and waits until connections succeed.
    pub(crate) fn build(way: ProxyVariant) -> Result<Self> {
        let world = TestNetwork::build()?;
        let sandbox = world.add_sandbox()?;
        for namespace in [&sandbox.namespace, &world.host, &world.internet] {
            apply_bench_sysctls(namespace)?;
        }
        let hello = wire_protocol::client_hello()?;
        let server = BenchServer::start(&world.internet, &hello)?;
        let relay = match way {
            ProxyVariant::Direct => ProxyRelay::Direct,
            ProxyVariant::Agent => {
                let agent = AgentProxy::start(&world, "")?;
                agent.add_sandbox(&sandbox, &json!({}))?;
                ProxyRelay::Agent(agent)
            }
            ProxyVariant::HaProxy => ProxyRelay::Peer(proxy_peers::start_haproxy(&world.host, "")?),
            ProxyVariant::HaProxyLarge => {
                ProxyRelay::Peer(proxy_peers::start_haproxy(&world.host, "tune.pipesize 1048576")?)
            }
            ProxyVariant::Nginx => ProxyRelay::Peer(proxy_peers::start_nginx(&world.host, "")?),
            ProxyVariant::NginxLarge => {
                ProxyRelay::Peer(proxy_peers::start_nginx(&world.host, "proxy_buffer_size 256k;")?)
            }
        };
        if let ProxyRelay::Peer(_) = relay {
            proxy_peers::redirect_to_peer(&world.host, &[&sandbox.interface])?;
        }
        let mut lane = Self { variant: way, relay, server, sandbox, hello, _network: world };
        lane.wait_until_open().with_context(|| format!("{}: {}", way.name(), lane.relay_log()))?;
        Ok(lane)
    }

    /// Waits until a connection succeeds.
    fn wait_until_open(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let ProxyRelay::Peer(process) = &mut self.relay {
                process.ensure_running()?;
            }
            match wire_protocol::connect_from(&self.sandbox.namespace, &self.hello) {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > *WAIT_LIMIT => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The process IDs of the proxy.
    pub(crate) fn relay_pids(&self) -> Vec<u32> {
        match &self.relay {
            ProxyRelay::Direct => Vec::new(),
            ProxyRelay::Agent(ours) => ours.pids(),
            ProxyRelay::Peer(process) => process.pids(),
        }
    }

    /// Returns the text, or a placeholder if there is no proxy.
    pub(crate) fn cell_unless_direct(&self, text: String) -> String {
        if self.variant == ProxyVariant::Direct { String::new() } else { text }
    }

    fn relay_log(&self) -> String {
        match &self.relay {
            ProxyRelay::Direct => String::new(),
            ProxyRelay::Agent(ours) => ours.log(),
            ProxyRelay::Peer(process) => process.output(),
        }
    }
}

/// Sets the same network parameters on every machine, and enough ports for many short connections
/// of the sandbox and of a proxy.
pub(crate) fn apply_bench_sysctls(namespace: &NetworkNamespace) -> Result<()> {
    // reno is available on every machine. BBR, if it were the default, would measure timer
    // accuracy.
    namespace.sysctl("ipv4/tcp_congestion_control", "reno")?;
    namespace.sysctl("ipv4/ip_local_port_range", "10000 65000")?;
    namespace.sysctl("ipv4/tcp_tw_reuse", "1")
}
