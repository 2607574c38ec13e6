//! Watchers: they follow interfaces that come and go, and look at everything every now and then.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use super::{
    Agent, command::AgentCommand, link_events, pooled_interface::PooledInterface, sandbox::Sandbox,
};

/// How often everything is scanned.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// How many sandboxes or interfaces a command names, so that no other command waits for long.
const SCAN_BATCH: usize = 64;

impl Agent {
    /// Follows interfaces that come and go, for ever: at once where the kernel tells, and all of
    /// them every now and then.
    pub async fn run_watchers(self) {
        tokio::join!(self.handle_link_events(), self.scan_periodically(), self.expire_leases());
    }

    async fn scan_periodically(&self) {
        let mut ticks = tokio::time::interval(SCAN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Pins of maps first: gates that call a map that is not pinned look as if they were gone.
            if let Err(error) = self.submit(AgentCommand::PruneAndRepin).await {
                tracing::error!("cannot tidy up: {error}");
            }
            self.scan_host_addresses().await;
            self.reconcile_sandboxes(&self.registry.all()).await;
            self.block_idle_interfaces(&self.pooled_interfaces).await;
        }
    }

    async fn handle_link_events(&self) {
        let mut link_events = match link_events::watch_links() {
            Ok(link_events) => link_events,
            Err(error) => return tracing::warn!("new interfaces are noticed late: {error:#}"),
        };
        while let Some(names) = link_events.recv().await {
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
        tracing::warn!("new interfaces are noticed late from now on");
    }

    /// Learns which addresses the host has in the namespaces of the sandboxes.
    async fn scan_host_addresses(&self) {
        let sandboxes = self.registry.all();
        let namespaces: BTreeSet<_> =
            sandboxes.iter().map(|sandbox| sandbox.base_spec.netns.clone()).collect();
        let namespaces: Vec<_> = namespaces.into_iter().collect();
        for chunk in namespaces.chunks(SCAN_BATCH) {
            let command = AgentCommand::RefreshHostAddresses(chunk.to_vec());
            if let Err(error) = self.submit(command).await {
                tracing::error!("cannot look at the host's own addresses: {error}");
            }
        }
    }

    async fn block_idle_interfaces(&self, pooled_interfaces: &[PooledInterface]) {
        for chunk in pooled_interfaces.chunks(SCAN_BATCH) {
            let command = AgentCommand::BlockIdleInterfaces(chunk.to_vec());
            if let Err(error) = self.submit(command).await {
                tracing::error!("cannot block the idle interfaces of [[interfaces]]: {error}");
            }
        }
    }

    async fn reconcile_sandboxes(&self, sandboxes: &[Arc<Sandbox>]) {
        for chunk in sandboxes.chunks(SCAN_BATCH) {
            let ids = chunk.iter().map(|sandbox| sandbox.id().clone()).collect();
            let command = AgentCommand::ReconcileSandboxes(ids);
            if let Err(error) = self.submit(command).await {
                tracing::error!("cannot reconcile sandboxes: {error}");
            }
        }
    }
}
