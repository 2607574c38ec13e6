//! Adoption at the start: reconciles what the kernel enforces with the state files.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, bail};

use super::{
    Reconciler,
    stage::{StagedChange, denying_sandbox},
};
use crate::{
    agent::sandbox::{Sandbox, lifetime::SandboxLifetime, split_network, store::SandboxRecord},
    dataplane::Slot,
};

impl Reconciler {
    /// Adopts what an earlier agent left. Attached gates stay attached.
    ///
    /// # Errors
    /// The disk or the kernel cannot be read. Errors about single sandboxes are logged.
    pub fn adopt(&mut self) -> Result<()> {
        let loaded = self.store.load()?;
        for (path, error) in &loaded.broken {
            tracing::error!(file = %path.display(), "set aside a broken sandbox: {error:#}");
        }
        // The gates of a pool interface without a sandbox are not orphans: the interface is idle.
        let pool = &self.interface_pool;
        let pinned_names = self.attachments.orphans.load(|pin_name| pool.owns_pin(pin_name))?;
        let dataplane = Arc::clone(&self.dataplane);
        let _expedited = dataplane.expedite_attaching();
        let mut changes = Vec::with_capacity(loaded.records.len());
        for record in loaded.records {
            let id = record.spec.sandbox_id.clone();
            match self.adopt_sandbox(record, &pinned_names) {
                Ok(change) => changes.push(change),
                Err(error) => tracing::error!(sandbox = %id, "cannot adopt it: {error:#}"),
            }
        }
        self.slots.reserve_orphaned(self.attachments.orphans.pin_names())?;
        self.publish_adopted(changes);
        self.attachments.orphans.detach_superseded(&self.registry.all());
        for id in self.attachments.orphans.pin_names() {
            tracing::warn!(
                sandbox = %id,
                "attached by an earlier agent, but not known: it stays as it is until it is \
                 applied again or deleted"
            );
        }
        self.interface_pool.adopt(&mut self.slots, &self.endpoints, &self.attachments)?;
        tracing::info!(sandboxes = self.registry.len(), "adopted");
        // The expiry task retries those that cannot be deleted now.
        self.delete_expired();
        Ok(())
    }

    fn adopt_sandbox(
        &mut self,
        record: SandboxRecord,
        pinned_names: &BTreeSet<String>,
    ) -> Result<StagedChange> {
        record.spec.validate()?;
        let policy = self.platform_policy.get().policy_for_accepted_spec(&record.spec)?;
        let slot = self.reserve_persisted_slot(&record)?;
        let lifetime = SandboxLifetime::restore(record.lifetime)?;
        let floor = self.floors.get_or_refresh(record.spec.netns.as_deref());
        let (base_spec, network) = split_network(record.spec);
        let (active_policy, compiled) =
            self.policy_interner.compile_shared(network, policy, &floor);
        let id = base_spec.sandbox_id.clone();
        let pin_name = self.interface_pool.pin_name(&base_spec);
        if self.interface_pool.owns_pin(&pin_name)
            && let Some(other) = self.registry.all().iter().find(|other| other.pin_name == pin_name)
        {
            bail!("its interface belongs to sandbox {}", other.id());
        }
        self.slots.assign(slot, &id);
        let mut sandbox =
            denying_sandbox(pin_name, base_spec, active_policy, slot, Arc::new(lifetime));
        self.attach_adopted(&mut sandbox, pinned_names)?;
        self.attachments.orphans.adopt(&sandbox.pin_name);
        self.registry.insert(sandbox.clone());
        Ok(StagedChange::for_republish(&Arc::new(sandbox), compiled))
    }

    /// Reserves the slot that the file names, or a free one if another file names the same slot.
    fn reserve_persisted_slot(&mut self, record: &SandboxRecord) -> Result<Slot> {
        if self.slots.reserve(record.slot) {
            return Ok(record.slot);
        }
        let slot = self.slots.take_free().context("every slot is taken")?;
        self.store.save(&SandboxRecord { slot, ..record.clone() })?;
        Ok(slot)
    }

    /// Adopts the attached gates of a sandbox. If there are none, attaches gates that deny
    /// everything until its policy is published.
    fn attach_adopted(&self, sandbox: &mut Sandbox, pinned_names: &BTreeSet<String>) -> Result<()> {
        if self.attachments.adopt(sandbox) {
            return Ok(());
        }
        self.slots.prepare_if_empty(sandbox.slot, &sandbox.base_spec)?;
        // If gates of another version or name are in force, the policy is published before these
        // gates are attached. Otherwise the sandbox would lose its connections in between.
        if !sandbox.is_pinned_in(pinned_names) {
            self.attachments.reattach_if_present(sandbox, &self.redirects);
        }
        Ok(())
    }

    fn publish_adopted(&mut self, changes: Vec<StagedChange>) {
        for (change, published_id) in self.publisher.publish_all(changes) {
            let mut sandbox = change.sandbox;
            sandbox.policy_id = published_id.as_ref().ok().copied();
            if let Err(error) = &published_id {
                tracing::error!(sandbox = %sandbox.id(), "cannot publish its policy: {error:#}");
            }
            self.reconcile_adopted(&mut sandbox, published_id.err());
            sandbox.log_observation();
            self.registry.insert(sandbox);
        }
    }
}
