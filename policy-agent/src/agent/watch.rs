//! Watchers: handle link events, scan everything periodically and expire leases.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use super::{
    Agent, command::AgentCommand, link_backlog::ChangedLinks, link_events::LinkEvents,
    pooled_interface::PooledInterface, sandbox::Sandbox,
};

/// The interval between scans.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of sandboxes or interfaces per command, so that other commands do not wait long.
const SCAN_BATCH: usize = 8;

impl Agent {
    /// Runs the watchers without end. Interfaces in the agent's own namespace are handled as soon
    /// as the kernel reports them, and all interfaces at every scan.
    pub async fn run_watchers(self) {
        tokio::join!(
            self.handle_link_events(),
            self.scan_periodically(),
            self.expire_leases(),
            self.expire_entries()
        );
    }

    async fn scan_periodically(&self) {
        let mut ticks = tokio::time::interval(SCAN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Restore the pins of maps first: gates that call an unpinned map would appear
            // detached.
            if let Err(error) = self.submit(AgentCommand::PruneAndRepin).await {
                tracing::error!("cannot tidy up: {error}");
            }
            self.scan_host_addresses().await;
            self.reconcile_sandboxes(&self.registry.all()).await;
            self.block_idle_interfaces(&self.pooled_interfaces).await;
        }
    }

    async fn handle_link_events(&self) {
        let link_events = match LinkEvents::subscribe() {
            Ok(link_events) => link_events,
            Err(error) => return tracing::warn!("new interfaces are noticed late: {error:#}"),
        };
        while let Some(changed) = link_events.next().await {
            let begin = Instant::now();
            match changed {
                ChangedLinks::Named(names) => self.reconcile_links(&names).await,
                ChangedLinks::All => {
                    tracing::warn!("the kernel reports changes of links too fast: looking at all");
                    self.reconcile_sandboxes(&self.registry.all()).await;
                    self.block_idle_interfaces(&self.pooled_interfaces).await;
                }
            }
            LinkEvents::yield_after(begin).await;
        }
        tracing::warn!("new interfaces are noticed late from now on");
    }

    /// Reconciles the sandboxes and idle interfaces that have these names in the agent's own
    /// namespace.
    async fn reconcile_links(&self, names: &BTreeSet<String>) {
        let mut named = self.registry.all();
        named.retain(|sandbox| {
            sandbox.base_spec.netns.is_none() && names.contains(&sandbox.base_spec.interface)
        });
        self.reconcile_sandboxes(&named).await;
        let mut pooled_interfaces = self.pooled_interfaces.to_vec();
        pooled_interfaces.retain(|PooledInterface { interface, .. }| {
            interface.netns.is_none() && names.contains(&interface.name)
        });
        self.block_idle_interfaces(&pooled_interfaces).await;
    }

    /// Reads the host's addresses in the namespaces of all sandboxes.
    async fn scan_host_addresses(&self) {
        let namespaces: Vec<_> = self.registry.namespaces().into_iter().collect();
        let failure = "cannot look at the host's own addresses";
        self.submit_batches(&namespaces, AgentCommand::RefreshHostAddresses, failure).await;
    }

    async fn block_idle_interfaces(&self, pooled_interfaces: &[PooledInterface]) {
        let failure = "cannot block the idle interfaces of [[interfaces]]";
        self.submit_batches(pooled_interfaces, AgentCommand::BlockIdleInterfaces, failure).await;
    }

    async fn reconcile_sandboxes(&self, sandboxes: &[Arc<Sandbox>]) {
        let ids: Vec<_> = sandboxes.iter().map(|sandbox| sandbox.id().clone()).collect();
        let failure = "cannot reconcile sandboxes";
        self.submit_batches(&ids, AgentCommand::ReconcileSandboxes, failure).await;
    }

    /// Submits a command for each batch of items. Errors are logged.
    async fn submit_batches<T: Clone>(
        &self,
        items: &[T],
        command: impl Fn(Vec<T>) -> AgentCommand,
        failure: &str,
    ) {
        for batch in items.chunks(SCAN_BATCH) {
            if let Err(error) = self.submit(command(batch.to_vec())).await {
                tracing::error!("{failure}: {error}");
            }
        }
    }
}
