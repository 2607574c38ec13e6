//! The start: what the kernel enforces, what the disk says, and how the two are made one.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::{
    change::{Change, fresh},
    presence::{Presence, namespace},
    publish,
    reconciler::Reconciler,
    sandbox::{Place, Sandbox, identity, interface, split},
};
use crate::{
    dataplane::Slot,
    life::Life,
    policy::{Compiled, SandboxSpec},
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
        self.orphans = pinned.iter().cloned().collect();
        let mut changes = Vec::with_capacity(loaded.entries.len());
        for entry in loaded.entries {
            let id = entry.spec.sandbox_id.clone();
            match self.adopt_one(entry) {
                Ok(change) => changes.push(change),
                Err(error) => tracing::error!(sandbox = %id, "cannot adopt it: {error:#}"),
            }
        }
        self.settle_orphans()?;
        self.publish_adopted(changes);
        tracing::info!(sandboxes = self.table.len(), "adopted");
        Ok(())
    }

    fn adopt_one(&mut self, entry: Entry) -> Result<Change> {
        entry.spec.validate()?;
        let policy = self.law.judge(&entry.spec)?;
        let slot = self.slot_on_disk(&entry)?;
        let life = Life::resume(entry.life)?;
        let (head, network) = split(entry.spec);
        let (rules, compiled) = self.pool.share(network, policy, &self.law.floor);
        let id = head.sandbox_id.clone();
        self.ledger.assign(slot, &id);
        let mut sandbox = fresh(head, rules, slot, Arc::new(life));
        self.attach_adopted(&mut sandbox)?;
        self.orphans.remove(id.as_str());
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
    fn attach_adopted(&self, sandbox: &mut Sandbox) -> Result<()> {
        let (id, wanted) = (sandbox.id().as_str().to_owned(), interface(&sandbox.head));
        if self.kernel.is_attached(&id, sandbox.slot, &wanted).unwrap_or(false) {
            let Presence::Here(index) = self.kernel.presence(&wanted) else { return Ok(()) };
            let namespace = namespace(wanted.netns.as_deref()).ok();
            sandbox.place = Some(Place { namespace, index, provable: true });
            return Ok(());
        }
        if self.kernel.published(sandbox.slot)?.is_none() {
            self.kernel.prepare(sandbox.slot, &identity(&sandbox.head))?;
        }
        // With gates of another version in force, the policy comes first and then these gates, or
        // what the sandbox may reach would be cut off in between.
        if !self.orphans.contains(&id) {
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
            tracing::warn!(
                sandbox = %id,
                "attached by an earlier agent, but not known: it stays as it is until it is \
                 applied again or deleted"
            );
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

    /// The compiled policy of a known sandbox, again.
    pub(super) fn recompile(&self, spec: &SandboxSpec) -> Result<Compiled> {
        Ok(crate::policy::compile(&self.law.judge(spec)?, &self.law.floor))
    }
}
