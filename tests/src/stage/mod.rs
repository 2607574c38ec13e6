//! A world with an agent in it, as tests want it: what goes wrong on the way is a panic that tells
//! the whole story, and a failing test shows the end of the agent's log.
//!
//! The tests of a file share a stage as long as one of them runs; each has a sandbox of its own.

mod fail;
mod flood;
mod guest;
mod name_scene;
mod refusal;
mod tally;
mod tap_guest;

use std::{
    net::{IpAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use serde_json::Value;

pub use fail::OrFail;
pub use flood::Flood;
pub use guest::{Guest, MARKER_TO};
pub use name_scene::NameScene;
pub use refusal::{cli_refuses, in_force, refuses_network, still_in_force};
pub use tally::Tally;
pub use tap_guest::{TOKEN, TapGuest};

use crate::{
    agent::{Agent, Answer, Ran},
    names::{Names, Site},
    server::{Ports, Servers},
    world::{
        World, internet,
        tap::Virtio,
        tapped::{self, Carrier},
    },
};

/// What the sandbox of [`Stage::with_sandbox`] may reach; 8.8.8.9 is not among it.
pub const OPENED: [&str; 2] = ["8.8.8.8", MARKER_TO];

/// Configuration of an agent that asks the internet's DNS server.
pub const RESOLVERS: &str = "[proxy]\nresolvers = [\"8.8.8.8:53\"]\n";

/// The address that a word means.
#[track_caller]
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no IP address"))
}

/// A world, the servers in its internet, and the agent in its host.
///
/// Fields are dropped in this order: the agent before the world it stands in.
pub struct Stage {
    agent: RwLock<Agent>,
    _servers: Servers,
    names: Option<Names>,
    /// The namespaces.
    pub world: World,
}

impl Stage {
    /// A stage of its own, for when things happen to the agent, and a sandbox on it that may only
    /// reach what is [`OPENED`].
    pub fn with_sandbox() -> (Arc<Self>, Guest) {
        let stage = Self::with("");
        let sandbox = stage.sandbox();
        sandbox.may_only_reach(&OPENED);
        (stage, sandbox)
    }

    /// Builds the world and starts an agent, with `config` (TOML) beside its directories.
    #[track_caller]
    pub fn with(config: &str) -> Arc<Self> {
        let stage = Self::without_agent(config);
        let started = stage.agent_mut().start(&stage.world.host);
        started.or_fail("starting the agent");
        stage
    }

    /// The same before the agent is started.
    #[track_caller]
    pub fn without_agent(config: &str) -> Arc<Self> {
        let world = World::build().or_fail("building a world");
        let servers = Servers::start(&world.internet, &internet::addresses());
        let servers = servers.or_fail("starting the internet's servers");
        let agent = Agent::configure(config).or_fail("configuring the agent");
        Arc::new(Self { agent: RwLock::new(agent), _servers: servers, names: None, world })
    }

    /// A stage whose internet has names: its agent resolves them there ([`RESOLVERS`]).
    #[track_caller]
    pub fn with_names(config: &str) -> Arc<Self> {
        let world = World::build().or_fail("building a world");
        let servers = world
            .internet
            .enter()
            .and_then(|_inside| Servers::start_here(&internet::addresses(), Ports::BesideNames));
        let servers = servers.or_fail("starting the internet's servers");
        let names = Names::start(&world.internet).or_fail("starting the servers with names");
        let mut agent = Agent::configure(config).or_fail("configuring the agent");
        agent.start(&world.host).or_fail("starting the agent");
        Arc::new(Self { agent: RwLock::new(agent), _servers: servers, names: Some(names), world })
    }

    /// The internet's names.
    #[track_caller]
    pub fn names(&self) -> &Names {
        self.names.as_ref().or_fail("the stage's names")
    }

    /// A new site with web servers.
    #[track_caller]
    pub fn site(&self, name: &str) -> Site {
        self.names().site(&self.world.internet, name).or_fail("adding a site")
    }

    /// A new site of which the test itself is the server, at a port of its IPv4 address.
    #[track_caller]
    pub fn own_site(&self, name: &str, port: u16) -> (Site, TcpListener) {
        self.names().own_site(&self.world.internet, name, port).or_fail("adding a site")
    }

    /// The agent.
    pub fn agent(&self) -> RwLockReadGuard<'_, Agent> {
        self.agent.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent, to be killed or started.
    pub fn agent_mut(&self) -> RwLockWriteGuard<'_, Agent> {
        self.agent.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the agent: no time to clean up.
    #[track_caller]
    pub fn kill(&self) {
        self.agent_mut().kill().or_fail("killing the agent");
    }

    /// Asks the agent to stop, which it does well.
    #[track_caller]
    pub fn stop(&self) {
        let status = self.agent_mut().stop().or_fail("stopping the agent");
        assert!(status.success(), "the agent ended with {status}");
    }

    /// Starts the agent again.
    #[track_caller]
    pub fn restart(&self) {
        self.agent_mut().start(&self.world.host).or_fail("starting the agent again");
    }

    /// A new sandbox that the agent does not know yet.
    #[track_caller]
    pub fn sandbox(self: &Arc<Self>) -> Guest {
        let sandbox = self.world.sandbox().or_fail("adding a sandbox");
        Guest::new(Arc::clone(self), sandbox)
    }

    /// The same behind a tap device; frames are carried as long as the second lives.
    #[track_caller]
    pub fn tapped_sandbox(self: &Arc<Self>, virtio: Virtio) -> (Guest, Carrier) {
        let (sandbox, carrier) =
            tapped::sandbox(&self.world, virtio).or_fail("adding a sandbox behind a tap device");
        (Guest::new(Arc::clone(self), sandbox), carrier)
    }

    /// Asks the API.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.agent().request(method, path, &body).or_fail("asking the agent")
    }

    /// Runs `policy-agent`.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        self.agent().cli(arguments).or_fail("running policy-agent")
    }

    /// Runs `policy-agent` with something on its stdin.
    #[track_caller]
    pub fn cli_with(&self, arguments: &[&str], stdin: &str) -> Ran {
        self.agent().cli_with(arguments, stdin).or_fail("running policy-agent")
    }
}

/// A stage that the tests of a file share. It stands while one of them holds it.
pub struct Shared {
    config: &'static str,
    build: fn(&str) -> Arc<Stage>,
    stage: Mutex<Weak<Stage>>,
}

impl Shared {
    /// A stage whose agent has `config` (TOML).
    pub const fn with(config: &'static str) -> Self {
        Self { config, build: Stage::with, stage: Mutex::new(Weak::new()) }
    }

    /// A stage whose internet has names.
    pub const fn with_names(config: &'static str) -> Self {
        Self { config, build: Stage::with_names, stage: Mutex::new(Weak::new()) }
    }

    /// The stage, built if need be.
    #[track_caller]
    pub fn stage(&self) -> Arc<Stage> {
        let mut known: MutexGuard<'_, Weak<Stage>> =
            self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = known.upgrade() {
            return stage;
        }
        let stage = (self.build)(self.config);
        *known = Arc::downgrade(&stage);
        stage
    }

    /// A new sandbox on it that the agent does not know yet.
    #[track_caller]
    pub fn sandbox(&self) -> Guest {
        self.stage().sandbox()
    }
}
