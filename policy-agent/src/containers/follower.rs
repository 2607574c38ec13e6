//! Follows containers that are restarted or join other networks: a sandbox moves to the interface
//! that its container has then.
//!
//! The events of the engine say when to look. After each connection to the engine all containers are
//! looked at, since events before it were missed.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};

use super::{ContainerEngines, container_event::ContainerEvent, inspection::ContainerInspection};
use crate::{
    agent::{Agent, InterfaceState, Sandbox, interface_for, probe_interface},
    policy::{ContainerEndpoint, ContainerEngine, ContainerReference},
};

/// The interval between looks for sandboxes with a container, and between connections to an engine.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// How often, and after which time each, an interface is looked for that is about to appear.
const INTERFACE_ATTEMPTS: usize = 100;
const INTERFACE_DELAY: Duration = Duration::from_millis(10);

/// Follows the containers of all sandboxes.
pub(crate) struct ContainerFollower {
    agent: Agent,
    engines: ContainerEngines,
}

impl ContainerFollower {
    pub(crate) const fn new(agent: Agent, engines: ContainerEngines) -> Self {
        Self { agent, engines }
    }

    /// Follows without end.
    pub(crate) async fn run(self) {
        let [docker, podman] = ContainerEngine::ALL.map(|engine| self.follow_engine(engine));
        tokio::join!(docker, podman);
    }

    async fn follow_engine(&self, engine: ContainerEngine) {
        let mut was_reachable = true;
        loop {
            if !self.sandboxes_of(engine).is_empty() {
                let ended = self.follow_events(engine).await;
                let is_reachable = ended.is_ok();
                if was_reachable || is_reachable {
                    let problem = ended.unwrap_or_else(|error| error);
                    tracing::warn!("restarted containers are noticed late: {problem:#}");
                }
                was_reachable = is_reachable;
            }
            sleep(RETRY_DELAY).await;
        }
    }

    /// Follows the events of an engine until they end, for the reason that is returned. The error
    /// is why they did not begin.
    async fn follow_events(&self, engine: ContainerEngine) -> anyhow::Result<anyhow::Error> {
        let mut events = self.engines.events(engine).await?;
        for sandbox in self.sandboxes_of(engine) {
            if let Some(container) = &sandbox.base_spec.container {
                self.look_at(engine, &container.name).await;
            }
        }
        loop {
            match events.next().await {
                Ok(event) => self.handle_event(engine, &event).await,
                Err(end) => return Ok(end),
            }
        }
    }

    async fn handle_event(&self, engine: ContainerEngine, event: &ContainerEvent) {
        let attempts = if event.precedes_interface() { INTERFACE_ATTEMPTS } else { 1 };
        for attempt in 1..=attempts {
            if self.look_at(engine, event.container_id()).await || attempt == attempts {
                return;
            }
            sleep(INTERFACE_DELAY).await;
        }
    }

    /// Moves the sandboxes of a container to where it is now. Returns `false` if it has no interface
    /// (yet), but sandboxes.
    async fn look_at(&self, engine: ContainerEngine, name: &str) -> bool {
        let inspection = match self.engines.inspect(engine, name).await {
            Ok(inspection) => inspection.map(Arc::new),
            Err(error) => {
                tracing::warn!(container = name, "cannot look at it: {error:#}");
                return true;
            }
        };
        let given = ContainerReference { engine, name: name.to_owned() };
        let means = |sandbox: &Arc<Sandbox>| {
            let reference = sandbox.base_spec.container.as_ref();
            reference.is_some_and(|reference| match &inspection {
                Some(inspection) => inspection.is(reference),
                None => *reference == given,
            })
        };
        let mut sandboxes = self.sandboxes_of(engine);
        sandboxes.retain(means);
        if sandboxes.is_empty() {
            return true;
        }
        // What is unclear leaves the sandboxes where they are.
        let Some(endpoint) = locate(inspection).await else { return true };
        let is_found = endpoint.is_some();
        for sandbox in sandboxes {
            self.move_sandbox(&sandbox, endpoint.clone()).await;
        }
        is_found
    }

    async fn move_sandbox(&self, sandbox: &Sandbox, endpoint: Option<ContainerEndpoint>) {
        let mut moved = sandbox.spec();
        moved.move_to(endpoint.clone());
        let is_early = endpoint.is_none() && has_its_interface(sandbox);
        if is_early || sandbox.has_same_endpoint(&moved) {
            return;
        }
        let id = sandbox.id();
        match self.agent.move_container(id.clone(), endpoint).await {
            Ok(()) if moved.interface.is_empty() => {
                tracing::info!(sandbox = %id, "its container has stopped");
            }
            Ok(()) => {
                tracing::info!(sandbox = %id, interface = moved.interface, "follows its container");
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::error!(sandbox = %id, "cannot follow its container: {error:#}");
            }
        }
    }

    fn sandboxes_of(&self, engine: ContainerEngine) -> Vec<Arc<Sandbox>> {
        let mut sandboxes = self.agent.registry().all();
        sandboxes.retain(|sandbox| {
            let container = sandbox.base_spec.container.as_ref();
            container.is_some_and(|container| container.engine == engine)
        });
        sandboxes
    }
}

/// Whether the interface that the sandbox was attached to still exists. To leave it would open it.
fn has_its_interface(sandbox: &Sandbox) -> bool {
    let attached = sandbox.attach_point.map(|point| InterfaceState::Present(point.ifindex));
    attached == Some(probe_interface(&interface_for(&sandbox.base_spec)))
}

/// Where a container is, or that it does not run. `None` if that is unclear.
async fn locate(inspection: Option<Arc<ContainerInspection>>) -> Option<Option<ContainerEndpoint>> {
    let Some(inspection) = inspection else { return Some(None) };
    let located = spawn_blocking(move || inspection.endpoint()).await;
    match located.map_err(anyhow::Error::new).and_then(|located| located) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            tracing::warn!("a container cannot be followed: {error:#}");
            None
        }
    }
}
