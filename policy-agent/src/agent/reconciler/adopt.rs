//! The start: what the kernel enforces, what the disk says, and how the two are made one.

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
    /// Takes over what an agent before this one left. What is attached stays attached.
    ///
    /// # Errors
    /// The disk or the kernel cannot be read. Trouble with single sandboxes is logged.
    pub fn adopt(&mut self) -> Result<()> {
        let loaded = self.store.load()?;
        for (path, error) in &loaded.broken {
            tracing::error!(file = %path.display(), "set aside a broken sandbox: {error:#}");
        }
        // The gates of an interface of the pool are no orphans: the interface is idle.
        let pool = &self.interface_pool;
        let pinned_names = self.attachments.orphans.load(|pin_name| pool.owns_pin(pin_name))?;
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
        // Those that cannot be ended now are tried again.
        self.delete_expired();
        Ok(())
    }

    fn adopt_sandbox(
        &mut self,
        record: SandboxRecord,
        pinned_names: &BTreeSet<String>,
    ) -> Result<StagedChange> {
        record.spec.validate()?;
        let policy = self.platform_policy.policy_for_spec(&record.spec)?;
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

    /// The slot that the file names, or a fresh one should two files name the same.
    fn reserve_persisted_slot(&mut self, record: &SandboxRecord) -> Result<Slot> {
        if self.slots.reserve(record.slot) {
            return Ok(record.slot);
        }
        let slot = self.slots.take_free().context("every slot is taken")?;
        self.store.save(&SandboxRecord { slot, ..record.clone() })?;
        Ok(slot)
    }

    /// Finds a sandbox's gates in place, or attaches them, denying until its policy is published.
    fn attach_adopted(&self, sandbox: &mut Sandbox, pinned_names: &BTreeSet<String>) -> Result<()> {
        if self.attachments.adopt(sandbox) {
            return Ok(());
        }
        self.slots.prepare_if_empty(sandbox.slot, &sandbox.base_spec)?;
        // With gates of another version or name in force, the policy comes first and then these
        // gates. Otherwise what the sandbox may reach would be cut off in between.
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
            self.reconcile_attachment(&mut sandbox, published_id.err());
            self.registry.insert(sandbox);
        }
    }
}
