//! A sandbox, a server in the internet, and what stands between them. Each lane is a world of its
//! own, so that all can stand while they are measured in turns.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    agent_proxy::AgentProxy, bench_process::BenchProcess, bench_server::BenchServer, proxy_peers,
    wire_protocol,
};
use policy_testbed::{
    network::{NetworkNamespace, Sandbox, TestNetwork},
    wait::WAIT_LIMIT,
};

/// What stands between sandbox and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyVariant {
    /// The host's routing.
    Direct,
    /// The agent.
    Agent,
    /// HAProxy.
    HaProxy,
    /// HAProxy, told to use larger pipes.
    HaProxyLarge,
    /// nginx.
    Nginx,
    /// nginx, told to use larger buffers.
    NginxLarge,
}

impl ProxyVariant {
    /// Whether it differs from another way in what matters to bulk transfers only.
    pub(crate) fn is_bulk_only(self) -> bool {
        matches!(self, Self::HaProxyLarge | Self::NginxLarge)
    }

    /// What it is called in tables.
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

/// Whoever relays.
enum ProxyRelay {
    Direct,
    Agent(AgentProxy),
    Peer(BenchProcess),
}

/// One lane. Fields are dropped in this order.
pub(crate) struct ProxySetup {
    /// What stands on it.
    pub(crate) variant: ProxyVariant,
    relay: ProxyRelay,
    /// Where the connections end.
    pub(crate) server: BenchServer,
    /// Where they start.
    pub(crate) sandbox: Sandbox,
    /// What they start with.
    pub(crate) hello: Arc<[u8]>,
    _network: TestNetwork,
}

impl ProxySetup {
    /// Builds a lane and waits until it is open.
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
            ProxyVariant::Agent => ProxyRelay::Agent(AgentProxy::start(&world, &sandbox)?),
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
            proxy_peers::redirect_to_peer(&world.host, &sandbox.interface)?;
        }
        let mut lane = Self { variant: way, relay, server, sandbox, hello, _network: world };
        lane.wait_until_open().with_context(|| format!("{}: {}", way.name(), lane.relay_log()))?;
        Ok(lane)
    }

    /// Waits until a connection gets through.
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

    /// The processes of who relays.
    pub(crate) fn relay_pids(&self) -> Vec<u32> {
        match &self.relay {
            ProxyRelay::Direct => Vec::new(),
            ProxyRelay::Agent(ours) => ours.pids(),
            ProxyRelay::Peer(process) => process.pids(),
        }
    }

    /// What is said of a proxy, where there is one.
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

/// Settings that are the same on every machine, and ports for many short connections, those of the
/// sandbox and those of a proxy.
pub(crate) fn apply_bench_sysctls(namespace: &NetworkNamespace) -> Result<()> {
    // Every machine has it; BBR, if that is the default, would measure how evenly timers go off.
    namespace.sysctl("ipv4/tcp_congestion_control", "reno")?;
    namespace.sysctl("ipv4/ip_local_port_range", "10000 65000")?;
    namespace.sysctl("ipv4/tcp_tw_reuse", "1")
}
