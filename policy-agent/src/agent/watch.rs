//! Interfaces come and go: brings back what is missing, and notices what went.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use super::{
    Agent, link_events, pooled_interface::PooledInterface, reconciler::Reconciler, sandbox::Sandbox,
};

/// How often all interfaces are looked at.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// Sandboxes, or interfaces without one, that are looked after before a change in waiting may go first.
const SCAN_BATCH: usize = 64;

impl Agent {
    /// Looks after interfaces that come and go, for ever: at once where the kernel tells, and all
    /// of them every now and then.
    pub async fn run_watchers(self) {
        tokio::join!(self.handle_link_events(), self.scan_periodically(), self.expire_leases());
    }

    async fn scan_periodically(&self) {
        let mut ticks = tokio::time::interval(SCAN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Pins of maps first: gates that call what is not pinned any more look like none.
            if let Err(error) = self.with_reconciler(Reconciler::prune_and_repin).await {
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
            let chunk = chunk.to_vec();
            let result = self
                .with_reconciler(move |reconciler| reconciler.refresh_host_addresses(&chunk))
                .await;
            if let Err(error) = result {
                tracing::error!("cannot look at the host's own addresses: {error}");
            }
        }
    }

    async fn block_idle_interfaces(&self, pooled_interfaces: &[PooledInterface]) {
        for chunk in pooled_interfaces.chunks(SCAN_BATCH) {
            let chunk = chunk.to_vec();
            let result = self
                .with_reconciler(move |reconciler| reconciler.block_idle_interfaces(&chunk))
                .await;
            if let Err(error) = result {
                tracing::error!("cannot look after the interfaces of [[interfaces]]: {error}");
            }
        }
    }

    async fn reconcile_sandboxes(&self, sandboxes: &[Arc<Sandbox>]) {
        for chunk in sandboxes.chunks(SCAN_BATCH) {
            let ids: Vec<_> = chunk.iter().map(|sandbox| sandbox.id().clone()).collect();
            let result = self.with_reconciler(move |reconciler| {
                reconciler.republish_changed_floors(&ids);
                ids.iter().for_each(|id| reconciler.reconcile_sandbox(id));
            });
            if let Err(error) = result.await {
                tracing::error!("cannot look after the interfaces: {error}");
            }
        }
    }
}
