//! A test network with an agent, as tests use it. Errors during setup panic with the full context,
//! and a failing test prints the end of the agent's log.
//!
//! The tests of a file share a testbed while at least one of them runs. Each test has its own
//! sandbox.

mod config_reload;
mod counted_flood;
mod domain_scenario;
mod frame_flood;
mod or_fail;
mod refused_input;
mod tap_sandbox;
mod test_sandbox;

use std::{
    net::{IpAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use serde_json::Value;

pub use config_reload::{RELOAD_REFUSED, RELOADED};
pub use counted_flood::CountedFlood;
pub use domain_scenario::DomainScenario;
pub use frame_flood::FrameFlood;
pub use or_fail::OrFail;
pub use refused_input::{
    assert_cli_refuses, assert_lasting_policy, assert_network_refused, with_lasting_policy,
};
pub use tap_sandbox::{TAP_FRAME_TOKEN, TapSandbox};
pub use test_sandbox::{MARKER_ADDRESS, TestSandbox};

use crate::{
    agent::{AgentProcess, ApiResponse, CliOutput},
    named_internet::{NamedInternet, WebSite, curl::CA_FILE},
    network::{
        TestNetwork, internet_addresses,
        tap_device::VirtioHeader,
        tap_relay::{self, FrameRelay},
    },
    test_servers::{ServerPorts, TestServers},
};

/// The addresses that the sandboxes of the short tests can reach. 8.8.8.9 is not one of them.
pub const ALLOWED_ADDRESSES: [&str; 2] = ["8.8.8.8", MARKER_ADDRESS];

/// The configuration of an agent that uses the internet's DNS server.
pub const RESOLVER_CONFIG: &str = "[proxy]\nresolvers = [\"8.8.8.8:53\"]\n";
/// The configuration of an agent that also trusts the authority of the internet's servers, for names
/// with `network.rules`.
pub const RULES_CONFIG: &str =
    "[proxy]\nresolvers = [\"8.8.8.8:53\"]\n[rules]\nextra_roots = \"@CA_FILE@\"\n";
/// What stands for the path of the authority's certificate in a configuration.
const CA_FILE_PLACEHOLDER: &str = "@CA_FILE@";
/// The configuration of an agent that attaches with clsact filters, as on kernels before 6.6.
pub const CLSACT_CONFIG: &str = "[dataplane]\nattach = \"clsact\"";
/// The configuration of an agent that also drops in XDP.
pub const XDP_CONFIG: &str = "[dataplane]\nmode = \"xdp\"";

/// Parses an address.
#[track_caller]
pub fn parse_ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no IP address"))
}

fn fill_in_ca_file(config: &str, names: &NamedInternet) -> String {
    let ca_file = names.client_files().join(CA_FILE);
    config.replace(CA_FILE_PLACEHOLDER, &ca_file.to_string_lossy())
}

/// A test network, the servers in its internet, and the agent in its host.
///
/// Fields are dropped in this order: the agent before the network that it runs in.
pub struct Testbed {
    agent: RwLock<AgentProcess>,
    _servers: TestServers,
    named_internet: Option<NamedInternet>,
    /// The namespaces.
    pub network: TestNetwork,
}

impl Testbed {
    /// A testbed that no other test shares, for tests that disturb the agent, with a sandbox that
    /// can reach [`ALLOWED_ADDRESSES`] only.
    pub fn with_sandbox() -> (Arc<Self>, TestSandbox) {
        Self::with_config_and_sandbox("")
    }

    /// The same with an agent with `config` (TOML).
    pub fn with_config_and_sandbox(config: &str) -> (Arc<Self>, TestSandbox) {
        let stage = Self::with_config(config);
        let sandbox = stage.add_sandbox();
        sandbox.allow_only(&ALLOWED_ADDRESSES);
        (stage, sandbox)
    }

    /// Builds the network and starts an agent with `config` (TOML).
    #[track_caller]
    pub fn with_config(config: &str) -> Arc<Self> {
        let stage = Self::without_agent(config);
        let started = stage.agent_mut().start(&stage.network.host);
        started.or_fail("starting the agent");
        stage
    }

    /// Builds the network without starting the agent.
    #[track_caller]
    pub fn without_agent(config: &str) -> Arc<Self> {
        let world = TestNetwork::build().or_fail("building a world");
        let servers = TestServers::start(&world.internet, &internet_addresses::all_addresses());
        let servers = servers.or_fail("starting the internet's servers");
        let agent = AgentProcess::configure(config).or_fail("configuring the agent");
        Arc::new(Self {
            agent: RwLock::new(agent),
            _servers: servers,
            named_internet: None,
            network: world,
        })
    }

    /// A testbed whose internet has names. Its agent resolves them there ([`RESOLVER_CONFIG`], or
    /// [`RULES_CONFIG`]).
    #[track_caller]
    pub fn with_names(config: &str) -> Arc<Self> {
        let world = TestNetwork::build().or_fail("building a world");
        let servers = world.internet.enter().and_then(|_inside| {
            TestServers::start_here(
                &internet_addresses::all_addresses(),
                ServerPorts::WithoutDnsAndWeb,
            )
        });
        let servers = servers.or_fail("starting the internet's servers");
        let names =
            NamedInternet::start(&world.internet).or_fail("starting the servers with names");
        let config = fill_in_ca_file(config, &names);
        let mut agent = AgentProcess::configure(&config).or_fail("configuring the agent");
        agent.start(&world.host).or_fail("starting the agent");
        Arc::new(Self {
            agent: RwLock::new(agent),
            _servers: servers,
            named_internet: Some(names),
            network: world,
        })
    }

    /// A configuration (TOML) with the paths of this testbed.
    fn fill_in(&self, config: &str) -> String {
        let names = self.named_internet.as_ref();
        names.map_or_else(|| config.to_owned(), |names| fill_in_ca_file(config, names))
    }

    /// The internet's names.
    #[track_caller]
    pub fn named_internet(&self) -> &NamedInternet {
        self.named_internet.as_ref().or_fail("the stage's names")
    }

    /// Adds a site with web servers.
    #[track_caller]
    pub fn add_site(&self, name: &str) -> WebSite {
        self.named_internet().add_site(&self.network.internet, name).or_fail("adding a site")
    }

    /// Adds a site whose server is the test itself, on a port of the site's IPv4 address.
    #[track_caller]
    pub fn add_manual_site(&self, name: &str, port: u16) -> (WebSite, TcpListener) {
        self.named_internet()
            .add_manual_site(&self.network.internet, name, port)
            .or_fail("adding a site")
    }

    /// The agent.
    pub fn agent(&self) -> RwLockReadGuard<'_, AgentProcess> {
        self.agent.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent, for tests that kill or start it.
    pub fn agent_mut(&self) -> RwLockWriteGuard<'_, AgentProcess> {
        self.agent.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the agent, which cannot clean up.
    #[track_caller]
    pub fn kill_agent(&self) {
        self.agent_mut().kill().or_fail("killing the agent");
    }

    /// Stops the agent and asserts that it exits successfully.
    #[track_caller]
    pub fn stop_agent(&self) {
        let status = self.agent_mut().stop().or_fail("stopping the agent");
        assert!(status.success(), "the agent ended with {status}");
    }

    /// Starts the agent again.
    #[track_caller]
    pub fn restart_agent(&self) {
        self.agent_mut().start(&self.network.host).or_fail("starting the agent again");
    }

    /// Adds a sandbox that the agent does not know yet.
    #[track_caller]
    pub fn add_sandbox(self: &Arc<Self>) -> TestSandbox {
        let sandbox = self.network.add_sandbox().or_fail("adding a sandbox");
        TestSandbox::new(Arc::clone(self), sandbox)
    }

    /// Adds a sandbox behind a tap device. Frames are relayed as long as the second value exists.
    #[track_caller]
    pub fn add_tap_sandbox(self: &Arc<Self>, virtio: VirtioHeader) -> (TestSandbox, FrameRelay) {
        let (sandbox, carrier) = tap_relay::add_sandbox_behind_tap(&self.network, virtio)
            .or_fail("adding a sandbox behind a tap device");
        (TestSandbox::new(Arc::clone(self), sandbox), carrier)
    }

    /// Sends a request to the API.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &Value) -> ApiResponse {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.agent().request(method, path, &body).or_fail("asking the agent")
    }

    /// Runs `policy-agent`.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> CliOutput {
        self.agent().cli(arguments).or_fail("running policy-agent")
    }

    /// Runs `policy-agent` with this standard input.
    #[track_caller]
    pub fn cli_with_stdin(&self, arguments: &[&str], stdin: &str) -> CliOutput {
        self.agent().cli_with_stdin(arguments, stdin).or_fail("running policy-agent")
    }
}

/// A testbed that the tests of a file share. It exists while at least one of them holds it.
pub struct SharedTestbed {
    config: &'static str,
    build: fn(&str) -> Arc<Testbed>,
    testbed: Mutex<Weak<Testbed>>,
}

impl SharedTestbed {
    /// A testbed whose agent has `config` (TOML).
    pub const fn with_config(config: &'static str) -> Self {
        Self { config, build: Testbed::with_config, testbed: Mutex::new(Weak::new()) }
    }

    /// A testbed whose internet has names.
    pub const fn with_names(config: &'static str) -> Self {
        Self { config, build: Testbed::with_names, testbed: Mutex::new(Weak::new()) }
    }

    /// The testbed, built if necessary.
    #[track_caller]
    pub fn testbed(&self) -> Arc<Testbed> {
        let mut known: MutexGuard<'_, Weak<Testbed>> =
            self.testbed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = known.upgrade() {
            return stage;
        }
        let stage = (self.build)(self.config);
        *known = Arc::downgrade(&stage);
        stage
    }

    /// Adds a sandbox that the agent does not know yet.
    #[track_caller]
    pub fn add_sandbox(&self) -> TestSandbox {
        self.testbed().add_sandbox()
    }
}
