//! One change of one sandbox, from what is asked for to what the kernel enforces.
//!
//! ```text
//! stage    take a slot, prepare it (denies all) · write to disk · attach a new sandbox · open its door
//! publish  (see `publish`) the policy is in force in the slot
//! finish   move an attached sandbox to its new slot · have the egress proxy follow the rules ·
//!          show it in the table · give back the old slot
//! undo     (see `undo`) instead, when something is refused: what was in force stays, and stays on
//!          disk
//! ```
//!
//! It is on disk before the kernel enforces it: an agent that dies in between publishes it when it
//! starts again.

use std::sync::Arc;

use anyhow::{Result, bail};
use policy_common::{counter::Counters, sandbox::MAX_SANDBOXES};

use super::{
    error::Error,
    presence::{Presence, namespace},
    reconciler::Reconciler,
    rules::Rules,
    sandbox::{Place, Sandbox, Status, identity, interface},
};
use crate::{
    dataplane::{Interface, PolicyId, Slot},
    life::Life,
    policy::{Compiled, SandboxId, SandboxSpec},
};

/// How often gates are attached that somebody takes off at once.
const ATTEMPTS: usize = 3;
/// What cannot be done without a door.
const NO_DOOR: &str = "cannot open its way to the egress proxy";

/// A sandbox that was asked for and found right.
pub struct Candidate {
    pub(super) head: Arc<SandboxSpec>,
    pub(super) rules: Arc<Rules>,
    pub(super) compiled: Compiled,
}

/// A candidate with a slot.
pub struct Change {
    pub(super) sandbox: Sandbox,
    pub(super) compiled: Compiled,
    pub(super) old: Option<Arc<Sandbox>>,
}

impl Change {
    /// The change that puts the policy of a sandbox in force where it already is.
    pub(super) fn of_known(sandbox: &Arc<Sandbox>, compiled: Compiled) -> Self {
        Self { sandbox: Sandbox::clone(sandbox), compiled, old: Some(sandbox.clone()) }
    }

    /// The sandbox that changes.
    pub fn id(&self) -> &SandboxId {
        self.sandbox.id()
    }

    /// Whether the sandbox is attached to another slot, or not at all.
    pub(super) fn has_new_slot(&self) -> bool {
        self.old.as_ref().is_none_or(|old| old.slot != self.sandbox.slot)
    }
}

impl Reconciler {
    /// Makes everything ready that can be undone without a trace. `life`: what a new sandbox has
    /// instead of a plain one.
    pub(super) fn stage(
        &mut self,
        candidate: Candidate,
        life: Option<Life>,
    ) -> Result<Change, Error> {
        let old = self.table.get(&candidate.head.sandbox_id);
        let kept = old.as_ref().filter(|old| old.is_where(&candidate.head));
        let life = match (&old, life) {
            (Some(old), _) => old.life.clone(),
            (None, Some(life)) => Arc::new(life),
            (None, None) => Arc::new(Life::begin().map_err(Error::Internal)?),
        };
        let slot = match kept {
            Some(old) => old.slot,
            None => self.new_slot(&candidate.head)?,
        };
        let Candidate { head, rules, compiled } = candidate;
        let sandbox = match kept {
            Some(old) => Sandbox { head, rules, ..Sandbox::clone(old) },
            None => fresh(self.berths.gates(&head), head, rules, slot, life),
        };
        let change = Change { sandbox, compiled, old };
        let change = match self.record(&change) {
            Ok(place) => Change {
                sandbox: Sandbox { place: place.or(change.sandbox.place), ..change.sandbox },
                ..change
            },
            Err((task, cause)) => return Err(self.undo(change, task, cause)),
        };
        match self.prepare_door(&change.sandbox) {
            Ok(()) => Ok(change),
            Err(cause) => Err(self.undo(change, NO_DOOR, cause)),
        }
    }

    fn new_slot(&mut self, spec: &SandboxSpec) -> Result<Slot, Error> {
        let id = &spec.sandbox_id;
        let Some(slot) = self.slots.take() else {
            return Err(Error::Full { sandbox: id.clone(), limit: MAX_SANDBOXES - 1 });
        };
        self.ledger.assign(slot, id);
        self.kernel.prepare(slot, &identity(spec)).map_err(|cause| {
            self.release(slot);
            Error::Failed {
                sandbox: id.clone(),
                task: "cannot prepare its slot",
                kept: "nothing was changed",
                cause,
            }
        })?;
        Ok(slot)
    }

    /// On disk first: what is attached is known to the next agent, too.
    fn record(&self, change: &Change) -> Result<Option<Place>, (&'static str, anyhow::Error)> {
        let entry = change.sandbox.entry();
        self.store.save(&entry).map_err(|error| ("cannot write it to disk", error))?;
        // Gates that are in force stay until the policy is: in a slot that denies everything, what the
        // sandbox may reach would be cut off in between.
        if change.old.is_some() || change.sandbox.has_gates_in(&self.orphans) {
            return Ok(None);
        }
        let Sandbox { gates, slot, head, .. } = &change.sandbox;
        let place = self.attach(gates, *slot, &interface(head));
        place.map(Some).map_err(|error| ("cannot attach to its interface", error))
    }

    /// The policy is in force in the slot: makes the slot the sandbox's.
    pub(super) fn finish(&mut self, change: Change, policy: PolicyId) -> Result<(), Error> {
        let mut sandbox = Sandbox { policy: Some(policy), ..change.sandbox.clone() };
        let placed = match &change.old {
            None if sandbox.place.is_some() => Ok(()),
            None => self.place(&mut sandbox),
            Some(_) if change.has_new_slot() => self.move_to(&mut sandbox),
            Some(_) => self.stay(&mut sandbox),
        };
        if let Err(cause) = placed {
            return Err(self.undo(change, "cannot attach it to its interface", cause));
        }
        if let Err(cause) = self.follow_rules(&sandbox) {
            return Err(self.undo(change, NO_DOOR, cause));
        }
        if let Some(old) = change.old.as_ref().filter(|_| change.has_new_slot()) {
            sandbox.carried = Arc::new(self.counted(old));
            match self.leave_for(old, &sandbox) {
                Ok(()) => self.release(old.slot),
                // Its slot stays taken: the gates may name it.
                Err(error) => {
                    tracing::error!(sandbox = %old.id(), "cannot leave its old interface: {error:#}");
                }
            }
        }
        tracing::info!(sandbox = %sandbox.id(), policy = policy.0, "policy in force");
        self.replace_orphan(&sandbox);
        self.table.insert(sandbox);
        Ok(())
    }

    /// Points an attached sandbox to its new slot, in one step for every packet. The interface may
    /// be missing if that is known already.
    fn move_to(&self, sandbox: &mut Sandbox) -> Result<()> {
        match self.kernel.presence(&interface(&sandbox.head)) {
            Presence::Here(_) => {
                self.place(sandbox)?;
                sandbox.status = Status::Enforcing;
                return Ok(());
            }
            // Gates that may be on a living interface are not taken off.
            Presence::Unknown(problem) => bail!("cannot look for its interface: {problem}"),
            Presence::NoInterface | Presence::NoNamespace(_) => {}
        }
        self.kernel.detach(&sandbox.gates)?;
        (sandbox.place, sandbox.status) = (None, Status::InterfaceMissing);
        Ok(())
    }

    /// Makes sure that a sandbox is still attached: its interface may be a new one of that name.
    fn stay(&self, sandbox: &mut Sandbox) -> Result<()> {
        if self.is_in_place(sandbox) {
            sandbox.status = Status::Enforcing;
            return Ok(());
        }
        self.move_to(sandbox)
    }

    /// Attaches a sandbox where its interface is now. In another namespace than before its door is
    /// of no use any more.
    pub(super) fn place(&self, sandbox: &mut Sandbox) -> Result<()> {
        let before = sandbox.place.and_then(|place| place.namespace);
        let place = self.attach(&sandbox.gates, sandbox.slot, &interface(&sandbox.head))?;
        if before.is_some() && place.namespace != before {
            self.shut_door(sandbox.slot);
        }
        sandbox.place = Some(place);
        Ok(())
    }

    /// Attaches an interface to a slot, with gates that are pinned under this name: again where
    /// somebody takes them off meanwhile.
    pub(super) fn attach(&self, gates: &str, slot: Slot, wanted: &Interface) -> Result<Place> {
        let namespace = namespace(wanted.netns.as_deref()).ok();
        let index = self.kernel.presence(wanted).index(wanted)?;
        for _ in 0..ATTEMPTS {
            self.kernel.attach(gates, slot, wanted)?;
            if self.kernel.is_attached(gates, slot, wanted)? {
                return Ok(Place { namespace, index });
            }
        }
        bail!("interface: the gates on {} were taken off again at once", wanted.name)
    }

    /// Takes off what an earlier agent attached for the sandbox under another name.
    fn replace_orphan(&mut self, sandbox: &Sandbox) {
        let id = sandbox.id().as_str();
        if !self.orphans.remove(id) || *sandbox.gates == *id {
            return;
        }
        if let Err(error) = self.kernel.detach(id) {
            tracing::error!(sandbox = id, "cannot take off what an earlier agent left: {error:#}");
            self.orphans.insert(id.to_owned());
        }
    }

    /// Takes a sandbox off the interface that it had before, unless its gates went with it.
    pub(super) fn leave_for(&self, old: &Sandbox, new: &Sandbox) -> Result<()> {
        if old.gates == new.gates { Ok(()) } else { self.leave(old) }
    }

    /// Gives a slot back.
    pub(super) fn release(&mut self, slot: Slot) {
        self.shut_door(slot);
        if let Err(error) = self.kernel.release(slot) {
            // It stays taken: a slot that could not be emptied is not given to another sandbox.
            tracing::error!(slot = slot.get(), "cannot empty a slot: {error:#}");
            return;
        }
        self.ledger.release(slot);
        self.slots.free(slot);
    }

    /// What was counted for a sandbox until now, in all slots it had.
    fn counted(&self, sandbox: &Sandbox) -> Counters {
        let mut sum = *sandbox.carried;
        match self.kernel.counters(sandbox.slot) {
            Ok(counters) => add(&mut sum, &counters),
            Err(error) => tracing::warn!(sandbox = %sandbox.id(), "counters lost: {error:#}"),
        }
        sum
    }
}

/// Adds counters up.
pub(super) fn add(sum: &mut Counters, counters: &Counters) {
    for (total, counter) in sum.by_reason.iter_mut().zip(&counters.by_reason) {
        total.packets += counter.packets;
        total.bytes += counter.bytes;
    }
}

/// A sandbox in a slot that denies everything.
pub(super) fn fresh(
    gates: Arc<str>,
    head: Arc<SandboxSpec>,
    rules: Arc<Rules>,
    slot: Slot,
    life: Arc<Life>,
) -> Sandbox {
    Sandbox {
        head,
        rules,
        life,
        gates,
        slot,
        policy: None,
        status: Status::Enforcing,
        place: None,
        carried: Arc::default(),
    }
}
