//! A world with an agent in it, as tests want it: what goes wrong on the way is a panic that tells
//! the whole story, and a failing test shows the end of the agent's log.
//!
//! The tests of a file share a stage as long as one of them runs; each has a sandbox of its own.

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
    named_internet::{NamedInternet, WebSite},
    network::{
        TestNetwork, internet_addresses,
        tap_device::VirtioHeader,
        tap_relay::{self, FrameRelay},
    },
    test_servers::{ServerPorts, TestServers},
};

/// What the sandboxes of the short tests may reach; 8.8.8.9 is not among it.
pub const ALLOWED_ADDRESSES: [&str; 2] = ["8.8.8.8", MARKER_ADDRESS];

/// Configuration of an agent that asks the internet's DNS server.
pub const RESOLVER_CONFIG: &str = "[proxy]\nresolvers = [\"8.8.8.8:53\"]\n";

/// The address that a word means.
#[track_caller]
pub fn parse_ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no IP address"))
}

/// A world, the servers in its internet, and the agent in its host.
///
/// Fields are dropped in this order: the agent before the world it stands in.
pub struct Testbed {
    agent: RwLock<AgentProcess>,
    _servers: TestServers,
    named_internet: Option<NamedInternet>,
    /// The namespaces.
    pub network: TestNetwork,
}

impl Testbed {
    /// A stage of its own, for when things happen to the agent, and a sandbox on it that may only
    /// reach what is [`ALLOWED_ADDRESSES`].
    pub fn with_sandbox() -> (Arc<Self>, TestSandbox) {
        let stage = Self::with_config("");
        let sandbox = stage.add_sandbox();
        sandbox.allow_only(&ALLOWED_ADDRESSES);
        (stage, sandbox)
    }

    /// Builds the world and starts an agent, with `config` (TOML) beside its directories.
    #[track_caller]
    pub fn with_config(config: &str) -> Arc<Self> {
        let stage = Self::without_agent(config);
        let started = stage.agent_mut().start(&stage.network.host);
        started.or_fail("starting the agent");
        stage
    }

    /// The same before the agent is started.
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

    /// A stage whose internet has names: its agent resolves them there ([`RESOLVER_CONFIG`]).
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
        let mut agent = AgentProcess::configure(config).or_fail("configuring the agent");
        agent.start(&world.host).or_fail("starting the agent");
        Arc::new(Self {
            agent: RwLock::new(agent),
            _servers: servers,
            named_internet: Some(names),
            network: world,
        })
    }

    /// The internet's names.
    #[track_caller]
    pub fn named_internet(&self) -> &NamedInternet {
        self.named_internet.as_ref().or_fail("the stage's names")
    }

    /// A new site with web servers.
    #[track_caller]
    pub fn add_site(&self, name: &str) -> WebSite {
        self.named_internet().add_site(&self.network.internet, name).or_fail("adding a site")
    }

    /// A new site of which the test itself is the server, at a port of its IPv4 address.
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

    /// The agent, to be killed or started.
    pub fn agent_mut(&self) -> RwLockWriteGuard<'_, AgentProcess> {
        self.agent.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the agent: no time to clean up.
    #[track_caller]
    pub fn kill_agent(&self) {
        self.agent_mut().kill().or_fail("killing the agent");
    }

    /// Asks the agent to stop, which it does well.
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

    /// A new sandbox that the agent does not know yet.
    #[track_caller]
    pub fn add_sandbox(self: &Arc<Self>) -> TestSandbox {
        let sandbox = self.network.add_sandbox().or_fail("adding a sandbox");
        TestSandbox::new(Arc::clone(self), sandbox)
    }

    /// The same behind a tap device; frames are carried as long as the second lives.
    #[track_caller]
    pub fn add_tap_sandbox(self: &Arc<Self>, virtio: VirtioHeader) -> (TestSandbox, FrameRelay) {
        let (sandbox, carrier) = tap_relay::add_sandbox_behind_tap(&self.network, virtio)
            .or_fail("adding a sandbox behind a tap device");
        (TestSandbox::new(Arc::clone(self), sandbox), carrier)
    }

    /// Asks the API.
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

    /// Runs `policy-agent` with something on its stdin.
    #[track_caller]
    pub fn cli_with_stdin(&self, arguments: &[&str], stdin: &str) -> CliOutput {
        self.agent().cli_with_stdin(arguments, stdin).or_fail("running policy-agent")
    }
}

/// A stage that the tests of a file share. It stands while one of them holds it.
pub struct SharedTestbed {
    config: &'static str,
    build: fn(&str) -> Arc<Testbed>,
    testbed: Mutex<Weak<Testbed>>,
}

impl SharedTestbed {
    /// A stage whose agent has `config` (TOML).
    pub const fn with_config(config: &'static str) -> Self {
        Self { config, build: Testbed::with_config, testbed: Mutex::new(Weak::new()) }
    }

    /// A stage whose internet has names.
    pub const fn with_names(config: &'static str) -> Self {
        Self { config, build: Testbed::with_names, testbed: Mutex::new(Weak::new()) }
    }

    /// The stage, built if need be.
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

    /// A new sandbox on it that the agent does not know yet.
    #[track_caller]
    pub fn add_sandbox(&self) -> TestSandbox {
        self.testbed().add_sandbox()
    }
}
