//! Sandboxes, a server in the internet, and a proxy between them that sets a header. Each setup has its
//! own test network, so that all setups exist at once and can be measured alternately.

use std::{fs, process::Command, sync::Arc};

use anyhow::{Context as _, Result};
use rustls::ClientConfig;
use serde_json::json;
use tempfile::TempDir;

use super::{
    super::{
        proxy_bench::{
            agent_proxy::AgentProxy,
            bench_process::BenchProcess,
            proxy_peers,
            proxy_setup::apply_bench_sysctls,
            wire_protocol::{SERVER_NAME, server_address},
        },
        reverse_proxy,
    },
    rule_client::RuleClient,
    rule_peers::{self, AUTHORITY_FILE, CREDENTIAL},
};
use policy_testbed::{
    named_internet::{
        certificate_authority::{CertificateAuthority, client_config_for},
        client_program,
    },
    network::{NetworkNamespace, Sandbox, TestNetwork, unique_directory},
    test_servers::HTTPS_PORT,
    wait::eventually,
};

/// What is between sandbox and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleVariant {
    /// The agent, without a rule: it does not open the connection.
    Spliced,
    /// The agent.
    Agent,
    /// nginx.
    Nginx,
    /// HAProxy.
    HaProxy,
}

impl RuleVariant {
    /// All variants, the one without a rule first.
    pub(super) const ALL: [Self; 4] = [Self::Spliced, Self::Agent, Self::Nginx, Self::HaProxy];

    /// The name in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Spliced => "ours, spliced (the client sets the header)",
            Self::Agent => "ours",
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
        }
    }

    /// Whether another program than the agent sets the header.
    pub(super) const fn is_peer(self) -> bool {
        matches!(self, Self::Nginx | Self::HaProxy)
    }
}

/// The running proxy.
enum RuleRelay {
    Agent(AgentProxy),
    Peer(BenchProcess),
}

/// One setup. Fields are dropped in this order.
pub(super) struct RuleSetup {
    /// What it measures.
    pub(super) variant: RuleVariant,
    relay: RuleRelay,
    _server: BenchProcess,
    /// The sources of the connections.
    pub(super) sandboxes: Vec<Sandbox>,
    authority: CertificateAuthority,
    files: TempDir,
    _network: TestNetwork,
}

impl RuleSetup {
    /// Builds a setup with this number of sandboxes, and waits until requests are answered.
    pub(super) fn build(variant: RuleVariant, sandboxes: usize) -> Result<Self> {
        let network = TestNetwork::build()?;
        let sandboxes: Vec<Sandbox> =
            (0..sandboxes).map(|_| network.add_sandbox()).collect::<Result<_>>()?;
        let inside = sandboxes.iter().map(|sandbox| &sandbox.namespace);
        for namespace in inside.chain([&network.host, &network.internet]) {
            apply_bench_sysctls(namespace)?;
        }
        let (files, authority) = (unique_directory("rules")?, CertificateAuthority::new()?);
        write_files(&files, &authority)?;
        let server = rule_peers::start_server(&network, &files)?;
        let relay = RuleRelay::start(variant, &network, &sandboxes, &files)?;
        let lane = Self {
            variant,
            relay,
            _server: server,
            sandboxes,
            authority,
            files,
            _network: network,
        };
        lane.wait_until_open()?;
        Ok(lane)
    }

    fn wait_until_open(&self) -> Result<()> {
        let mut last = None;
        let opened = self.sandboxes.iter().try_for_each(|sandbox| {
            eventually("a request is answered", || {
                self.open_client(sandbox).map(drop).map_err(|error| last = Some(error)).ok()
            })
        });
        let name = self.variant.name();
        opened.with_context(|| format!("{name}: {last:?}; {}", self.relay.log()))
    }

    /// A client whose requests the server answers.
    pub(super) fn open_client(&self, sandbox: &Sandbox) -> Result<RuleClient> {
        let config = Arc::new(self.client_config(sandbox)?);
        let header_lines = self.own_header().map(|line| line + "\r\n").unwrap_or_default();
        RuleClient::open(&sandbox.namespace, &config, &header_lines)
    }

    /// The TLS configuration of a client that trusts the certificates it gets.
    fn client_config(&self, sandbox: &Sandbox) -> Result<ClientConfig> {
        match &self.relay {
            RuleRelay::Agent(agent) if self.variant == RuleVariant::Agent => {
                client_config_for(&agent.authority_of(sandbox)?)
            }
            _ => self.authority.client_config(),
        }
    }

    /// The header that the client itself sets, where no proxy does.
    fn own_header(&self) -> Option<String> {
        let is_spliced = self.variant == RuleVariant::Spliced;
        is_spliced.then(|| format!("Authorization: {CREDENTIAL}"))
    }

    /// A wrk in the first sandbox.
    pub(super) fn wrk_command(&self) -> Result<Command> {
        let inside = &self.sandboxes[0].namespace;
        let mut wrk = client_program::client_command(inside, self.files.path(), "wrk".as_ref())?;
        wrk.args(self.own_header().map(|line| format!("--header={line}")));
        Ok(wrk)
    }

    /// The URL of the requests.
    pub(super) fn url(&self) -> String {
        format!("https://{SERVER_NAME}/")
    }

    /// The process IDs of the proxy.
    pub(super) fn relay_pids(&self) -> Vec<u32> {
        match &self.relay {
            RuleRelay::Agent(agent) => agent.pids(),
            RuleRelay::Peer(process) => process.pids(),
        }
    }
}

/// Writes certificates, and the hosts file of the clients.
fn write_files(files: &TempDir, authority: &CertificateAuthority) -> Result<()> {
    reverse_proxy::write_certificate(files, authority, SERVER_NAME)?;
    fs::write(files.path().join(AUTHORITY_FILE), authority.pem())?;
    let address = server_address(HTTPS_PORT).ip();
    client_program::write_client_files(files.path(), &format!("{address} {SERVER_NAME}\n"))
}

impl RuleRelay {
    fn start(
        variant: RuleVariant,
        network: &TestNetwork,
        sandboxes: &[Sandbox],
        files: &TempDir,
    ) -> Result<Self> {
        let host: &NetworkNamespace = &network.host;
        let peer = match variant {
            RuleVariant::Spliced | RuleVariant::Agent => {
                return Self::start_agent(variant, network, sandboxes, files);
            }
            RuleVariant::Nginx => rule_peers::start_nginx(host, files)?,
            RuleVariant::HaProxy => rule_peers::start_haproxy(host, files)?,
        };
        let interfaces: Vec<&str> =
            sandboxes.iter().map(|sandbox| sandbox.interface.as_str()).collect();
        proxy_peers::redirect_to_peer(host, &interfaces)?;
        Ok(Self::Peer(peer))
    }

    fn start_agent(
        variant: RuleVariant,
        network: &TestNetwork,
        sandboxes: &[Sandbox],
        files: &TempDir,
    ) -> Result<Self> {
        let roots = files.path().join(AUTHORITY_FILE);
        let agent = AgentProxy::start(network, &format!("[rules]\nextra_roots = {roots:?}\n"))?;
        let rules = match variant {
            RuleVariant::Agent => json!({
                SERVER_NAME: [{ "transform": { "headers": { "Authorization": CREDENTIAL } } }],
            }),
            _ => json!({}),
        };
        sandboxes.iter().try_for_each(|sandbox| agent.add_sandbox(sandbox, &rules))?;
        Ok(Self::Agent(agent))
    }

    fn log(&self) -> String {
        match self {
            Self::Agent(agent) => agent.log(),
            Self::Peer(process) => process.output(),
        }
    }
}
