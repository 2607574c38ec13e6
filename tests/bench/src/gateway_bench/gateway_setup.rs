//! Internet clients, a service in a sandbox, and a reverse proxy between them. Each setup has its
//! own test network, so that all setups exist at once and can be measured alternately.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::reverse_proxies;
use crate::{
    proxy_bench::{bench_process::BenchProcess, proxy_setup::apply_bench_sysctls},
    reverse_proxy::{self, wait_until_listening},
};
use policy_testbed::{
    agent::AgentProcess,
    named_internet::certificate_authority::CertificateAuthority,
    network::{Sandbox, TestNetwork, host_router::HOST_UPLINK_V4, unique_directory},
    public_url::{self, GATEWAY_DOMAIN, SERVICE_PORT},
    test_servers::{HTTP_PORT, HTTPS_PORT},
};

/// The URL scheme of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UrlScheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl UrlScheme {
    /// The scheme's name in URLs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The component between client and service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatewayVariant {
    /// The host's routing.
    Direct,
    /// The agent.
    Agent,
    /// nginx.
    Nginx,
    /// HAProxy.
    HaProxy,
}

impl GatewayVariant {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Agent => "ours",
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
        }
    }
}

/// The running reverse proxy.
enum GatewayRelay {
    Direct,
    Agent(AgentProcess),
    Peer(BenchProcess),
}

/// One setup. Fields are dropped in this order.
pub(crate) struct GatewaySetup {
    /// The component that it measures.
    pub(crate) variant: GatewayVariant,
    relay: GatewayRelay,
    _service: BenchProcess,
    sandbox: Sandbox,
    network: TestNetwork,
    _files: TempDir,
}

impl GatewaySetup {
    /// Builds a setup and waits until the service is reachable.
    pub(crate) fn build(way: GatewayVariant) -> Result<Self> {
        let world = TestNetwork::build()?;
        let sandbox = world.add_sandbox()?;
        for namespace in [&sandbox.namespace, &world.host, &world.internet] {
            apply_bench_sysctls(namespace)?;
        }
        let files = unique_directory("certificate")?;
        reverse_proxy::write_certificate(
            &files,
            &CertificateAuthority::new()?,
            &format!("*.{GATEWAY_DOMAIN}"),
        )?;
        let service = reverse_proxies::start_service(&sandbox.namespace)?;
        let to = (sandbox.addressing.v4(), SERVICE_PORT).into();
        wait_until_listening(&world.host, to)?;
        let relay = match way {
            GatewayVariant::Direct => GatewayRelay::Direct,
            GatewayVariant::Agent => GatewayRelay::Agent(start_agent(&world, &sandbox, &files)?),
            GatewayVariant::Nginx => {
                GatewayRelay::Peer(reverse_proxies::start_nginx(&world.host, &files, to)?)
            }
            GatewayVariant::HaProxy => {
                GatewayRelay::Peer(reverse_proxies::start_haproxy(&world.host, &files, to)?)
            }
        };
        if way != GatewayVariant::Direct {
            for port in [HTTP_PORT, HTTPS_PORT] {
                wait_until_listening(&world.internet, (HOST_UPLINK_V4, port).into())?;
            }
        }
        Ok(Self { variant: way, relay, _service: service, sandbox, network: world, _files: files })
    }

    /// A wrk in the internet, with the host of the clients' requests.
    pub(crate) fn wrk_command(&self) -> Result<Command> {
        let mut wrk = self.network.internet.command("wrk")?;
        let host = public_url::public_host(&self.sandbox.id, SERVICE_PORT);
        wrk.arg(format!("--header=Host: {host}"));
        Ok(wrk)
    }

    /// The URL of the clients' requests.
    pub(crate) fn url(&self, scheme: UrlScheme) -> String {
        match self.variant {
            GatewayVariant::Direct => {
                format!("http://{}:{SERVICE_PORT}/", self.sandbox.addressing.v4())
            }
            _ => format!("{}://{HOST_UPLINK_V4}/", scheme.name()),
        }
    }

    /// The process IDs of the reverse proxy.
    pub(crate) fn relay_pids(&self) -> Vec<u32> {
        match &self.relay {
            GatewayRelay::Direct => Vec::new(),
            GatewayRelay::Agent(agent) => agent.pid().into_iter().collect(),
            GatewayRelay::Peer(process) => process.pids(),
        }
    }
}

fn start_agent(world: &TestNetwork, sandbox: &Sandbox, files: &TempDir) -> Result<AgentProcess> {
    let at = |name: &str| files.path().join(name);
    let config = format!(
        "{}tls_cert = {:?}\ntls_key = {:?}\n",
        public_url::GATEWAY_CONFIG,
        at("cert"),
        at("key")
    );
    let mut agent = AgentProcess::configure(&config)?;
    agent.start(&world.host)?;
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let answer = agent.request("PUT", &path, &sandbox.sandbox_spec(&json!({})).to_string())?;
    ensure!(answer.status < 300, "the agent refuses the sandbox: {}", answer.body);
    Ok(agent)
}
