//! Follows containers that are restarted or join other networks: a sandbox moves to the interface
//! that its container has then.
//!
//! The events of the engine say when to look. After each connection to the engine all containers are
//! looked at, since events before it were missed. What is unclear is looked at again, and until then
//! the status of the sandbox says why.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    ContainerEngines,
    container_event::ContainerEvent,
    pending_looks::{Look, PendingLooks, QUICK_LOOKS},
};
use crate::{
    agent::{Agent, AgentError, InterfaceState, Sandbox, interface_for, probe_interface},
    policy::{ContainerEndpoint, ContainerEngine, ContainerReference},
};

/// The interval between looks for sandboxes with a container, and between connections to an engine.
const RETRY_DELAY: Duration = Duration::from_secs(2);

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
        let mut pending = PendingLooks::default();
        for sandbox in self.sandboxes_of(engine) {
            pending.add(Look { id: sandbox.id().clone(), quick_left: 0 });
        }
        loop {
            self.look_at_due(&mut pending).await;
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => self.note_event(engine, &event, &mut pending).await,
                    Err(end) => return Ok(end),
                },
                () = pending.wait() => {}
            }
        }
    }

    /// Adds looks at the containers that an event may be about. Which container a name or the
    /// beginning of an ID means, the engine says then.
    async fn note_event(
        &self,
        engine: ContainerEngine,
        event: &ContainerEvent,
        pending: &mut PendingLooks,
    ) {
        let id = event.container_id();
        let name = match event.container_name() {
            Some(name) => Ok(Some(name.to_owned())),
            None => {
                let inspected = self.engines.inspect(engine, id).await;
                inspected.map(|inspection| inspection.map(|it| it.name().to_owned()))
            }
        };
        let may_mean = |reference: &ContainerReference| match &name {
            Ok(name) => id.starts_with(&reference.name) || name.as_ref() == Some(&reference.name),
            Err(_) => true,
        };
        let quick_left = if event.precedes_interface() { QUICK_LOOKS } else { 0 };
        for sandbox in self.sandboxes_of(engine) {
            if sandbox.base_spec.container.as_ref().is_some_and(may_mean) {
                pending.add(Look { id: sandbox.id().clone(), quick_left });
            }
        }
    }

    /// Looks at the containers that are due, and moves their sandboxes to where they are now.
    async fn look_at_due(&self, pending: &mut PendingLooks) {
        let mut moves = Vec::new();
        for look in pending.take_due() {
            let Some(sandbox) = self.agent.registry().get(&look.id) else { continue };
            let Some(container) = &sandbox.base_spec.container else { continue };
            match self.engines.locate(container).await {
                Ok(found) => moves.push((look, found.flatten())),
                Err(problem) => {
                    report_problem(&sandbox, &problem);
                    pending.look_again(look);
                }
            }
        }
        // Those that have stopped give up what others may have now.
        moves.sort_by_key(|(_, endpoint)| endpoint.is_some());
        let mut refused = Vec::new();
        for (look, endpoint) in moves {
            if self.move_sandbox(&look, endpoint.clone(), pending).await.is_err() {
                refused.push((look, endpoint));
            }
        }
        self.exchange(refused, pending).await;
    }

    /// Moves sandboxes that could not be moved one by one. Containers may have exchanged their
    /// addresses: each has what another one is recorded to have. So all give up theirs first.
    async fn exchange(
        &self,
        moves: Vec<(Look, Option<ContainerEndpoint>)>,
        pending: &mut PendingLooks,
    ) {
        if moves.len() > 1 {
            for (look, _) in &moves {
                // Whether this works shows in the move.
                let _ = self.agent.move_container(look.id.clone(), None).await;
            }
        }
        for (look, endpoint) in moves {
            if let Err(error) = self.move_sandbox(&look, endpoint, pending).await
                && let Some(sandbox) = self.agent.registry().get(&look.id)
            {
                report_problem(&sandbox, &anyhow::Error::new(error));
                pending.look_again(look);
            }
        }
    }

    /// Moves a sandbox to where its container is. It is looked at again if the container is about to
    /// get an interface, or to lose the one that the sandbox has.
    async fn move_sandbox(
        &self,
        look: &Look,
        endpoint: Option<ContainerEndpoint>,
        pending: &mut PendingLooks,
    ) -> Result<(), AgentError> {
        let Some(sandbox) = self.agent.registry().get(&look.id) else { return Ok(()) };
        let mut moved = sandbox.spec();
        moved.move_to(endpoint.clone());
        let is_early = endpoint.is_none() && has_its_interface(&sandbox);
        let is_unchanged = is_early || sandbox.has_same_endpoint(&moved);
        let is_awaited = look.quick_left > 0 && (is_unchanged || endpoint.is_none());
        if !is_unchanged {
            self.agent.move_container(look.id.clone(), endpoint).await?;
            let interface = moved.interface;
            tracing::info!(sandbox = %look.id, interface, "follows its container");
        }
        clear_problem(&sandbox);
        if is_early || is_awaited {
            pending.look_again(look.clone());
        }
        Ok(())
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

/// Shows in the status and in the log why a container is not followed.
fn report_problem(sandbox: &Sandbox, problem: &anyhow::Error) {
    let Some(container) = &sandbox.base_spec.container else { return };
    let text = format!("cannot follow its container: {problem:#}");
    if sandbox.lifetime.container_problem().set(container, Some(text.clone())) {
        tracing::warn!(sandbox = %sandbox.id(), "{text}");
    }
}

fn clear_problem(sandbox: &Sandbox) {
    if let Some(container) = &sandbox.base_spec.container
        && sandbox.lifetime.container_problem().set(container, None)
    {
        tracing::info!(sandbox = %sandbox.id(), "its container can be followed again");
    }
}

/// Whether the interface that the sandbox was attached to still exists. To leave it would open it.
fn has_its_interface(sandbox: &Sandbox) -> bool {
    let attached = sandbox.attach_point.map(|point| InterfaceState::Present(point.ifindex));
    attached == Some(probe_interface(&interface_for(&sandbox.base_spec)))
}
