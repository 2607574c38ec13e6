//! The start: what the kernel enforces, what the disk says, and how the two are made one.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, bail};

use super::{
    change::{Change, fresh},
    presence::{Presence, namespace},
    publish,
    reconciler::Reconciler,
    sandbox::{Place, Sandbox, Status, identity, interface, split},
};
use crate::{
    dataplane::{Interface, Slot},
    life::Life,
    store::Entry,
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
        let pinned = self.kernel.attached_ids().context("cannot list what is attached")?;
        let pinned: BTreeSet<String> = pinned.into_iter().collect();
        // A berth's gates without a sandbox are no orphans: the berth is vacant.
        self.orphans = pinned.clone();
        self.orphans.retain(|gates| !self.berths.are_of(gates));
        let mut changes = Vec::with_capacity(loaded.entries.len());
        for entry in loaded.entries {
            let id = entry.spec.sandbox_id.clone();
            match self.adopt_one(entry, &pinned) {
                Ok(change) => changes.push(change),
                Err(error) => tracing::error!(sandbox = %id, "cannot adopt it: {error:#}"),
            }
        }
        self.settle_orphans()?;
        self.publish_adopted(changes);
        self.retire_outgrown();
        for id in &self.orphans {
            tracing::warn!(
                sandbox = %id,
                "attached by an earlier agent, but not known: it stays as it is until it is \
                 applied again or deleted"
            );
        }
        self.adopt_berths()?;
        tracing::info!(sandboxes = self.table.len(), "adopted");
        // Those that cannot be ended now are tried again.
        self.end_overdue();
        Ok(())
    }

    fn adopt_one(&mut self, entry: Entry, pinned: &BTreeSet<String>) -> Result<Change> {
        entry.spec.validate()?;
        let policy = self.law.judge(&entry.spec)?;
        let slot = self.slot_on_disk(&entry)?;
        let life = Life::resume(entry.life)?;
        let floor = self.floor_of_adopted(entry.spec.netns.as_deref());
        let (head, network) = split(entry.spec);
        let (rules, compiled) = self.pool.share(network, policy, &floor);
        let id = head.sandbox_id.clone();
        let gates = self.berths.gates(&head);
        if self.berths.are_of(&gates)
            && let Some(other) = self.table.all().iter().find(|other| other.gates == gates)
        {
            bail!("its interface belongs to sandbox {}", other.id());
        }
        self.ledger.assign(slot, &id);
        let mut sandbox = fresh(gates, head, rules, slot, Arc::new(life));
        self.attach_adopted(&mut sandbox, pinned)?;
        self.orphans.remove(&*sandbox.gates);
        self.table.insert(sandbox.clone());
        Ok(Change::of_known(&Arc::new(sandbox), compiled))
    }

    /// The slot that the file names, or a fresh one should two files name the same.
    fn slot_on_disk(&mut self, entry: &Entry) -> Result<Slot> {
        if self.slots.claim(entry.slot) {
            return Ok(entry.slot);
        }
        let slot = self.slots.take().context("every slot is taken")?;
        self.store.save(&Entry { slot, ..entry.clone() })?;
        Ok(slot)
    }

    /// Finds a sandbox's gates in place, or attaches them, denying until its policy is published.
    fn attach_adopted(&self, sandbox: &mut Sandbox, pinned: &BTreeSet<String>) -> Result<()> {
        let (gates, wanted) = (sandbox.gates.clone(), interface(&sandbox.head));
        if self.kernel.is_attached(&gates, sandbox.slot, &wanted).unwrap_or(false) {
            let Presence::Here(index) = self.kernel.presence(&wanted) else { return Ok(()) };
            let namespace = namespace(wanted.netns.as_deref()).ok();
            sandbox.place = Some(Place { namespace, index });
            return Ok(());
        }
        if self.kernel.published(sandbox.slot)?.is_none() {
            self.kernel.prepare(sandbox.slot, &identity(&sandbox.head))?;
        }
        // With gates of another version or name in force, the policy comes first and then these
        // gates, or what the sandbox may reach would be cut off in between.
        if !sandbox.has_gates_in(pinned) {
            self.reattach(sandbox);
        }
        Ok(())
    }

    fn publish_adopted(&mut self, changes: Vec<Change>) {
        for (change, published) in publish::all(&*self.kernel, &self.ledger, changes) {
            let mut sandbox = change.sandbox;
            sandbox.policy = published.as_ref().ok().copied();
            if let Err(error) = &published {
                tracing::error!(sandbox = %sandbox.id(), "cannot publish its policy: {error:#}");
            }
            self.settle(&mut sandbox, published.err());
            self.table.insert(sandbox);
        }
    }

    /// Gates without a file: they go on enforcing what they did, and their slots are not given to
    /// anybody else. Without such gates, what no file names is left over and goes.
    fn settle_orphans(&mut self) -> Result<()> {
        for id in &self.orphans {
            if let Some(slot) = self.kernel.attached_slot(id)? {
                self.slots.claim(slot);
            }
        }
        let free: Vec<Slot> = Slot::all().filter(|slot| !self.slots.is_taken(*slot)).collect();
        for slot in free {
            if self.kernel.published(slot)?.is_none() {
                continue;
            }
            if self.orphans.is_empty() {
                self.kernel.release(slot)?;
            } else {
                self.slots.claim(slot);
            }
        }
        Ok(())
    }

    /// Takes off gates that others have replaced, since `[[interfaces]]` names an interface that it did
    /// not name before; and those of an interface that it does not name any more.
    fn retire_outgrown(&mut self) {
        let mut outgrown: BTreeSet<String> = self.orphans.clone();
        outgrown.retain(|gates| Interface::of_gates(gates).is_some());
        for sandbox in self.table.all() {
            let berths = interface(&sandbox.head).gates();
            let names = [Some(sandbox.id().to_string()), berths].into_iter().flatten();
            for name in names.filter(|name| self.orphans.contains(name)) {
                match sandbox.status {
                    Status::Failed(_) => outgrown.remove(&name),
                    _ => outgrown.insert(name),
                };
            }
        }
        for gates in outgrown {
            match self.kernel.detach(&gates) {
                Ok(()) => self.orphans.remove(&gates),
                Err(error) => {
                    tracing::error!(gates, "cannot take off what was replaced: {error:#}");
                    continue;
                }
            };
        }
    }
}
