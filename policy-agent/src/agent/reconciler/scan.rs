//! Scans: restore what is missing and detect what has changed.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;

use super::{Reconciler, stage::StagedChange};
use crate::{
    agent::{
        pooled_interface::PooledInterface,
        sandbox::{EnforcementStatus, Sandbox},
    },
    policy::SandboxId,
};

impl Reconciler {
    /// Applies changes of the host's addresses to these sandboxes, and restores what is missing.
    pub(crate) fn reconcile_sandboxes(&mut self, ids: &[SandboxId]) {
        self.republish_changed_floors(ids);
        ids.iter().for_each(|id| self.reconcile_sandbox(id));
    }

    /// Republishes and reattaches one sandbox where necessary.
    pub(crate) fn reconcile_sandbox(&mut self, id: &SandboxId) {
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

    /// Ensures that a sandbox is attached. Its status then says whether it is, and whether its
    /// policy could be published.
    pub(crate) fn reconcile_attachment(
        &self,
        sandbox: &mut Sandbox,
        publish_error: Option<anyhow::Error>,
    ) {
        match self.attachments.is_sandbox_attached(sandbox) {
            true => sandbox.status = EnforcementStatus::Enforcing,
            false => self.attachments.reattach_if_present(sandbox, &self.redirects),
        }
        self.reconcile_redirects(sandbox, publish_error);
    }

    /// Like [`Self::reconcile_attachment`], for a sandbox that was looked at when it was adopted.
    pub(crate) fn reconcile_adopted(
        &self,
        sandbox: &mut Sandbox,
        publish_error: Option<anyhow::Error>,
    ) {
        if !sandbox.is_known_attached() {
            self.attachments.reattach_if_present(sandbox, &self.redirects);
        }
        self.reconcile_redirects(sandbox, publish_error);
    }

    /// Passes the policy of a sandbox on to the egress proxy. Its status then says whether that
    /// worked.
    pub(crate) fn reconcile_redirects(
        &self,
        sandbox: &mut Sandbox,
        publish_error: Option<anyhow::Error>,
    ) {
        if let (Some(error), EnforcementStatus::Enforcing) = (publish_error, &sandbox.status) {
            sandbox.status =
                EnforcementStatus::Failed(format!("cannot publish its policy: {error:#}"));
        }
        if let Err(error) = self.redirects.sync(sandbox) {
            sandbox.status =
                EnforcementStatus::Failed(format!("no way to the egress proxy: {error:#}"));
        }
    }

    fn republish(&self, sandbox: &mut Sandbox) -> Result<()> {
        let change = StagedChange::for_republish(
            &Arc::new(sandbox.clone()),
            sandbox.active_policy.compile(),
        );
        for (_, published) in self.publisher.publish_all(vec![change]) {
            sandbox.policy_id = Some(published?);
        }
        Ok(())
    }

    /// Drops unused state and restores missing pins.
    pub(crate) fn prune_and_repin(&mut self) {
        self.slots.prune();
        self.policy_interner.prune();
        self.floors.prune(&self.registry);
        self.attachments.restore_pins();
    }

    /// Blocks the idle interfaces among these.
    pub(crate) fn block_idle_interfaces(&mut self, interfaces: &[PooledInterface]) {
        self.interface_pool.block_idle(interfaces, &self.endpoints, &self.attachments);
    }

    /// Reads the host's addresses in these namespaces from the kernel.
    pub(crate) fn refresh_host_addresses(&mut self, namespaces: &[Option<PathBuf>]) {
        self.floors.refresh_all(namespaces);
    }

    /// Republishes the policies of those sandboxes for which the host's addresses have changed.
    pub(crate) fn republish_changed_floors(&mut self, ids: &[SandboxId]) {
        let stale: Vec<StagedChange> =
            ids.iter().filter_map(|id| self.change_for_new_floor(id)).collect();
        if stale.is_empty() {
            return;
        }
        for (change, published) in self.publisher.publish_all(stale) {
            let sandbox = change.sandbox;
            let republished = published.and_then(|policy_id| {
                let sandbox = Sandbox { policy_id: Some(policy_id), ..sandbox.clone() };
                self.redirects.sync(&sandbox)?;
                self.registry.insert(sandbox);
                Ok(())
            });
            match republished {
                Ok(()) => tracing::info!(
                    sandbox = %sandbox.id(),
                    "the host's own addresses have changed; they are denied as they are now"
                ),
                // The next scan retries.
                Err(error) => tracing::error!(
                    sandbox = %sandbox.id(),
                    "cannot deny the host's own addresses as they are now: {error:#}"
                ),
            }
        }
    }

    fn change_for_new_floor(&mut self, id: &SandboxId) -> Option<StagedChange> {
        let known = self.registry.get(id)?;
        let floor = self.floors.get(known.base_spec.netns.as_deref())?;
        if Arc::ptr_eq(&floor, &known.active_policy.floor) || floor == known.active_policy.floor {
            return None;
        }
        let (network, policy) =
            (known.active_policy.network.clone(), known.active_policy.policy.clone());
        let (active_policy, compiled) =
            self.policy_interner.compile_shared(network, policy, &floor);
        let sandbox = Arc::new(Sandbox { active_policy, ..Sandbox::clone(&known) });
        Some(StagedChange::for_republish(&sandbox, compiled))
    }
}
