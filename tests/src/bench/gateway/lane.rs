//! Clients in the internet, a service in a sandbox, and what stands between them. Each lane is a
//! world of its own, so that all can stand while they are measured in turns.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::{load::Scheme, peer};
use crate::{
    agent::Agent,
    bench::proxied::{
        lane::settle,
        process::{self, Process},
    },
    gateway::{self, DOMAIN, PORT},
    names::authority::Authority,
    patience::eventually,
    probe,
    server::{HTTP, HTTPS},
    world::{Namespace, Sandbox, World, host::HOST_V4},
};

/// What stands between client and service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The host's routing.
    Direct,
    /// The agent.
    Ours,
    /// nginx.
    Nginx,
    /// HAProxy.
    HaProxy,
}

impl Way {
    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ours => "ours",
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
        }
    }
}

/// Whoever relays.
enum Relay {
    Nobody,
    Ours(Agent),
    Peer(Process),
}

/// One lane. Fields are dropped in this order.
pub struct Lane {
    /// What stands on it.
    pub way: Way,
    relay: Relay,
    _service: Process,
    sandbox: Sandbox,
    /// Its namespaces.
    pub world: World,
    _files: TempDir,
}

impl Lane {
    /// Builds a lane and waits until it is open.
    pub fn build(way: Way) -> Result<Self> {
        let world = World::build()?;
        let sandbox = world.sandbox()?;
        for namespace in [&sandbox.inside, &world.host, &world.internet] {
            settle(namespace)?;
        }
        let files = process::directory("certificate")?;
        certify(&files)?;
        let service = peer::service(&sandbox.inside)?;
        let to = (sandbox.identity.v4(), PORT).into();
        opens(&world.host, to)?;
        let relay = match way {
            Way::Direct => Relay::Nobody,
            Way::Ours => Relay::Ours(ours(&world, &sandbox, &files)?),
            Way::Nginx => Relay::Peer(peer::nginx(&world.host, &files, to)?),
            Way::HaProxy => Relay::Peer(peer::haproxy(&world.host, &files, to)?),
        };
        if way != Way::Direct {
            for port in [HTTP, HTTPS] {
                opens(&world.internet, (HOST_V4, port).into())?;
            }
        }
        Ok(Self { way, relay, _service: service, sandbox, world, _files: files })
    }

    /// The host that clients ask for.
    pub fn host(&self) -> String {
        gateway::host(&self.sandbox.id, PORT)
    }

    /// Where clients connect.
    pub fn url(&self, scheme: Scheme) -> String {
        match self.way {
            Way::Direct => format!("http://{}:{PORT}/", self.sandbox.identity.v4()),
            _ => format!("{}://{HOST_V4}/", scheme.name()),
        }
    }

    /// The processes of who relays.
    pub fn pids(&self) -> Vec<u32> {
        match &self.relay {
            Relay::Nobody => Vec::new(),
            Relay::Ours(agent) => agent.pid().into_iter().collect(),
            Relay::Peer(process) => process.pids(),
        }
    }
}

fn opens(from: &Namespace, to: SocketAddr) -> Result<()> {
    eventually(&format!("{to} listens"), || probe::connect(from, to).ok().map(drop))
}

/// One certificate for all, and its key; HAProxy wants both in one file.
fn certify(files: &TempDir) -> Result<()> {
    let (certificate, key) = Authority::new()?.issue(&format!("*.{DOMAIN}"))?;
    fs::write(files.path().join("both"), format!("{certificate}{key}"))?;
    fs::write(files.path().join("cert"), certificate)?;
    fs::write(files.path().join("key"), key)?;
    Ok(())
}

fn ours(world: &World, sandbox: &Sandbox, files: &TempDir) -> Result<Agent> {
    let at = |name: &str| files.path().join(name);
    let config =
        format!("{}tls_cert = {:?}\ntls_key = {:?}\n", gateway::CONFIG, at("cert"), at("key"));
    let mut agent = Agent::configure(&config)?;
    agent.start(&world.host)?;
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let answer = agent.request("PUT", &path, &sandbox.spec(&json!({})).to_string())?;
    ensure!(answer.code < 300, "the agent refuses the sandbox: {}", answer.body);
    Ok(agent)
}
