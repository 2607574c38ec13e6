//! The start: what the kernel enforces, what the disk says, and how the two are made one.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, bail};

use super::{
    Reconciler, publish,
    stage::{StagedChange, denying_sandbox},
};
use crate::{
    agent::{
        interface_state::{InterfaceState, namespace_id},
        sandbox::{
            AttachPoint, EnforcementStatus, Sandbox, endpoint_addresses_for, interface_for,
            lifetime::SandboxLifetime, split_network, store::SandboxRecord,
        },
    },
    dataplane::{HostInterface, Slot},
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
        let pinned_names =
            self.dataplane.attached_pin_names().context("cannot list what is attached")?;
        let pinned_names: BTreeSet<String> = pinned_names.into_iter().collect();
        // A berth's gates without a sandbox are no orphans: the berth is vacant.
        self.orphaned_pins = pinned_names.clone();
        self.orphaned_pins.retain(|pin_name| !self.interface_pool.owns_pin(pin_name));
        let mut changes = Vec::with_capacity(loaded.records.len());
        for record in loaded.records {
            let id = record.spec.sandbox_id.clone();
            match self.adopt_sandbox(record, &pinned_names) {
                Ok(change) => changes.push(change),
                Err(error) => tracing::error!(sandbox = %id, "cannot adopt it: {error:#}"),
            }
        }
        self.reserve_orphan_slots()?;
        self.publish_adopted(changes);
        self.detach_superseded();
        for id in &self.orphaned_pins {
            tracing::warn!(
                sandbox = %id,
                "attached by an earlier agent, but not known: it stays as it is until it is \
                 applied again or deleted"
            );
        }
        self.adopt_interface_pool()?;
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
        let floor = self.floor_for_adopted(record.spec.netns.as_deref());
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
        self.attribution.assign_slot(slot, &id);
        let mut sandbox =
            denying_sandbox(pin_name, base_spec, active_policy, slot, Arc::new(lifetime));
        self.attach_adopted(&mut sandbox, pinned_names)?;
        self.orphaned_pins.remove(&*sandbox.pin_name);
        self.registry.insert(sandbox.clone());
        Ok(StagedChange::for_republish(&Arc::new(sandbox), compiled))
    }

    /// The slot that the file names, or a fresh one should two files name the same.
    fn reserve_persisted_slot(&mut self, record: &SandboxRecord) -> Result<Slot> {
        if self.slot_allocator.reserve(record.slot) {
            return Ok(record.slot);
        }
        let slot = self.slot_allocator.allocate().context("every slot is taken")?;
        self.store.save(&SandboxRecord { slot, ..record.clone() })?;
        Ok(slot)
    }

    /// Finds a sandbox's gates in place, or attaches them, denying until its policy is published.
    fn attach_adopted(&self, sandbox: &mut Sandbox, pinned_names: &BTreeSet<String>) -> Result<()> {
        let (pin_name, interface) = (sandbox.pin_name.clone(), interface_for(&sandbox.base_spec));
        if self.dataplane.is_attached(&pin_name, sandbox.slot, &interface).unwrap_or(false) {
            let InterfaceState::Present(ifindex) = self.dataplane.interface_state(&interface)
            else {
                return Ok(());
            };
            let namespace_id = namespace_id(interface.netns.as_deref()).ok();
            sandbox.attach_point = Some(AttachPoint { namespace: namespace_id, ifindex });
            return Ok(());
        }
        if self.dataplane.published_policy(sandbox.slot)?.is_none() {
            self.dataplane
                .prepare_slot(sandbox.slot, &endpoint_addresses_for(&sandbox.base_spec))?;
        }
        // With gates of another version or name in force, the policy comes first and then these
        // gates, or what the sandbox may reach would be cut off in between.
        if !sandbox.is_pinned_in(pinned_names) {
            self.reattach_if_present(sandbox);
        }
        Ok(())
    }

    fn publish_adopted(&mut self, changes: Vec<StagedChange>) {
        for (change, published_id) in
            publish::publish_all(&*self.dataplane, &self.attribution, changes)
        {
            let mut sandbox = change.sandbox;
            sandbox.policy_id = published_id.as_ref().ok().copied();
            if let Err(error) = &published_id {
                tracing::error!(sandbox = %sandbox.id(), "cannot publish its policy: {error:#}");
            }
            self.reconcile_attachment(&mut sandbox, published_id.err());
            self.registry.insert(sandbox);
        }
    }

    /// Gates without a file: they go on enforcing what they did, and their slots are not given to
    /// anybody else. Without such gates, what no file names is left over and goes.
    fn reserve_orphan_slots(&mut self) -> Result<()> {
        for id in &self.orphaned_pins {
            if let Some(slot) = self.dataplane.attached_slot(id)? {
                self.slot_allocator.reserve(slot);
            }
        }
        let free: Vec<Slot> =
            Slot::all().filter(|slot| !self.slot_allocator.is_allocated(*slot)).collect();
        for slot in free {
            if self.dataplane.published_policy(slot)?.is_none() {
                continue;
            }
            if self.orphaned_pins.is_empty() {
                self.dataplane.release_slot(slot)?;
            } else {
                self.slot_allocator.reserve(slot);
            }
        }
        Ok(())
    }

    /// Takes off gates that others have replaced, since `[[interfaces]]` names an interface that it did
    /// not name before; and those of an interface that it does not name any more.
    fn detach_superseded(&mut self) {
        let mut superseded: BTreeSet<String> = self.orphaned_pins.clone();
        superseded.retain(|pin_name| HostInterface::from_pin_name(pin_name).is_some());
        for sandbox in self.registry.all() {
            let pool_pin_name = interface_for(&sandbox.base_spec).pin_name();
            let names = [Some(sandbox.id().to_string()), pool_pin_name].into_iter().flatten();
            for name in names.filter(|name| self.orphaned_pins.contains(name)) {
                match sandbox.status {
                    EnforcementStatus::Failed(_) => superseded.remove(&name),
                    _ => superseded.insert(name),
                };
            }
        }
        for pin_name in superseded {
            match self.dataplane.detach(&pin_name) {
                Ok(()) => self.orphaned_pins.remove(&pin_name),
                Err(error) => {
                    tracing::error!(pin_name, "cannot take off what was replaced: {error:#}");
                    continue;
                }
            };
        }
    }
}
