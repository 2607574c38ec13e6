//! A sandbox, a server in the internet, and what stands between them. Each lane is a world of its
//! own, so that all can stand while they are measured in turns.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{hello, ours::Ours, peer, process::Process, server::Server};
use crate::{
    patience::PATIENCE,
    world::{Namespace, Sandbox, World},
};

/// What stands between sandbox and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The host's routing.
    Direct,
    /// The agent.
    Ours,
    /// HAProxy.
    HaProxy,
    /// HAProxy, told to use larger pipes.
    HaProxyLarge,
    /// nginx.
    Nginx,
    /// nginx, told to use larger buffers.
    NginxLarge,
}

impl Way {
    /// Whether it differs from another way in what matters to bulk transfers only.
    pub fn is_large(self) -> bool {
        matches!(self, Self::HaProxyLarge | Self::NginxLarge)
    }

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ours => "ours",
            Self::HaProxy => "HAProxy",
            Self::HaProxyLarge => "HAProxy, pipes of 1 MiB",
            Self::Nginx => "nginx",
            Self::NginxLarge => "nginx, buffers of 256 KiB",
        }
    }
}

/// Whoever relays.
enum Relay {
    Nobody,
    Ours(Ours),
    Peer(Process),
}

/// One lane. Fields are dropped in this order.
pub struct Lane {
    /// What stands on it.
    pub way: Way,
    relay: Relay,
    /// Where the connections end.
    pub server: Server,
    /// Where they start.
    pub sandbox: Sandbox,
    /// What they start with.
    pub hello: Arc<[u8]>,
    _world: World,
}

impl Lane {
    /// Builds a lane and waits until it is open.
    pub fn build(way: Way) -> Result<Self> {
        let world = World::build()?;
        let sandbox = world.sandbox()?;
        for namespace in [&sandbox.inside, &world.host, &world.internet] {
            settle(namespace)?;
        }
        let hello = hello::client_hello()?;
        let server = Server::start(&world.internet, &hello)?;
        let relay = match way {
            Way::Direct => Relay::Nobody,
            Way::Ours => Relay::Ours(Ours::start(&world, &sandbox)?),
            Way::HaProxy => Relay::Peer(peer::haproxy(&world.host, "")?),
            Way::HaProxyLarge => Relay::Peer(peer::haproxy(&world.host, "tune.pipesize 1048576")?),
            Way::Nginx => Relay::Peer(peer::nginx(&world.host, "")?),
            Way::NginxLarge => Relay::Peer(peer::nginx(&world.host, "proxy_buffer_size 256k;")?),
        };
        if let Relay::Peer(_) = relay {
            peer::redirect(&world.host, &sandbox.interface)?;
        }
        let mut lane = Self { way, relay, server, sandbox, hello, _world: world };
        lane.opened().with_context(|| format!("{}: {}", way.name(), lane.log()))?;
        Ok(lane)
    }

    /// Waits until a connection gets through.
    fn opened(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Relay::Peer(process) = &mut self.relay {
                process.check()?;
            }
            match hello::connect(&self.sandbox.inside, &self.hello) {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > *PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The processes of who relays.
    pub fn pids(&self) -> Vec<u32> {
        match &self.relay {
            Relay::Nobody => Vec::new(),
            Relay::Ours(ours) => ours.pids(),
            Relay::Peer(process) => process.pids(),
        }
    }

    /// What is said of a proxy, where there is one.
    pub fn of_proxy(&self, text: String) -> String {
        if self.way == Way::Direct { String::new() } else { text }
    }

    fn log(&self) -> String {
        match &self.relay {
            Relay::Nobody => String::new(),
            Relay::Ours(ours) => ours.log(),
            Relay::Peer(process) => process.printed(),
        }
    }
}

/// Settings that are the same on every machine, and ports for many short connections, those of the
/// sandbox and those of a proxy.
pub fn settle(namespace: &Namespace) -> Result<()> {
    // Every machine has it; BBR, if that is the default, would measure how evenly timers go off.
    namespace.sysctl("ipv4/tcp_congestion_control", "reno")?;
    namespace.sysctl("ipv4/ip_local_port_range", "10000 65000")?;
    namespace.sysctl("ipv4/tcp_tw_reuse", "1")
}
