//! Interfaces come and go: brings back what is missing, and notices what went.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::MissedTickBehavior;

use super::{
    Agent,
    interface_pool::PooledInterface,
    interface_state::InterfaceState,
    link_events,
    reconciler::{Reconciler, publish, stage::StagedChange},
    sandbox::{AttachPoint, EnforcementStatus, Sandbox, interface_for},
};
use crate::{
    dataplane::{HostInterface, Slot},
    policy::SandboxId,
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

impl Reconciler {
    /// Looks after one sandbox. Does nothing where all is as it should be.
    pub fn reconcile_sandbox(&mut self, id: &SandboxId) {
        let Some(known) = self.registry.get(id) else { return };
        let mut sandbox = Sandbox::clone(&known);
        let publish_error = match sandbox.policy_id {
            Some(_) => None,
            None => self.republish(&mut sandbox).err(),
        };
        self.reconcile_attachment(&mut sandbox, publish_error);
        let state_of =
            |sandbox: &Sandbox| (sandbox.status.clone(), sandbox.attach_point, sandbox.policy_id);
        if state_of(&sandbox) != state_of(&known) {
            self.registry.insert(sandbox);
        }
    }

    /// Makes sure that a sandbox is attached. Its status tells whether it is, and whether its
    /// policy could be published.
    pub(super) fn reconcile_attachment(
        &self,
        sandbox: &mut Sandbox,
        publish_error: Option<anyhow::Error>,
    ) {
        if self.is_sandbox_attached(sandbox) {
            sandbox.status = EnforcementStatus::Enforcing;
        } else {
            self.reattach_if_present(sandbox);
        }
        if let (Some(error), EnforcementStatus::Enforcing) = (publish_error, &sandbox.status) {
            sandbox.status =
                EnforcementStatus::Failed(format!("cannot publish its policy: {error:#}"));
        }
        if let Err(error) = self.sync_proxy_policy(sandbox) {
            sandbox.status =
                EnforcementStatus::Failed(format!("no way to the egress proxy: {error:#}"));
        }
    }

    /// Forgets what has no use any more, and puts back what has to be pinned.
    pub fn prune_and_repin(&mut self) {
        self.attribution.prune();
        self.policy_interner.prune();
        self.prune_floor_cache();
        if let Err(error) = self.dataplane.restore_pins() {
            tracing::error!("cannot pin the maps again: {error:#}");
        }
    }

    /// Whether the gates are on the interface that now has the name.
    pub(super) fn is_sandbox_attached(&self, sandbox: &Sandbox) -> bool {
        sandbox.attach_point.is_some()
            && self.are_gates_attached(
                &sandbox.pin_name,
                sandbox.slot,
                &interface_for(&sandbox.base_spec),
            )
    }

    /// Whether gates point to this slot, and are on the interface that now has the name.
    pub(super) fn are_gates_attached(
        &self,
        pin_name: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> bool {
        self.dataplane.is_attached(pin_name, slot, interface).unwrap_or(false)
    }

    /// Attaches a sandbox if its interface is there, and says so in its status.
    pub(super) fn reattach_if_present(&self, sandbox: &mut Sandbox) {
        let (before, attach_point) = (sandbox.status.clone(), sandbox.attach_point);
        sandbox.status = match self.dataplane.interface_state(&interface_for(&sandbox.base_spec)) {
            InterfaceState::Present(_) => match self.attach_sandbox(sandbox) {
                Ok(()) => EnforcementStatus::Enforcing,
                Err(error) => EnforcementStatus::Failed(format!("{error:#}")),
            },
            InterfaceState::Unknown(_) => return,
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => {
                EnforcementStatus::InterfaceMissing
            }
        };
        if sandbox.status != EnforcementStatus::Enforcing {
            sandbox.attach_point = None;
        }
        Self::log_status_change(sandbox, &before, attach_point);
    }

    /// What became of a sandbox that was not attached, before in this status and place.
    fn log_status_change(
        sandbox: &Sandbox,
        before: &EnforcementStatus,
        attach_point: Option<AttachPoint>,
    ) {
        let interface = &sandbox.base_spec.interface;
        // The very interface that it was attached to, which the kernel never lets go of by itself.
        let was_attached = *before == EnforcementStatus::Enforcing && attach_point.is_some();
        match &sandbox.status {
            EnforcementStatus::Enforcing
                if was_attached && attach_point == sandbox.attach_point =>
            {
                tracing::warn!(
                    sandbox = %sandbox.id(),
                    interface,
                    "its gates were gone, or behind another program; attached again: what it sent \
                     meanwhile was not judged"
                )
            }
            EnforcementStatus::Enforcing => {
                tracing::info!(sandbox = %sandbox.id(), interface, "attached")
            }
            EnforcementStatus::Failed(reason) if was_attached => tracing::error!(
                sandbox = %sandbox.id(),
                interface,
                "its gates are gone, or behind another program, and cannot be attached: what it \
                 sends is not judged: {reason}"
            ),
            status if status != before => {
                tracing::warn!(sandbox = %sandbox.id(), "not attached: {status}");
            }
            _ => {}
        }
    }

    fn republish(&self, sandbox: &mut Sandbox) -> Result<()> {
        let change = StagedChange::for_republish(
            &Arc::new(sandbox.clone()),
            sandbox.active_policy.compile(),
        );
        for (_, published) in
            publish::publish_all(&*self.dataplane, &self.attribution, vec![change])
        {
            sandbox.policy_id = Some(published?);
        }
        Ok(())
    }
}
