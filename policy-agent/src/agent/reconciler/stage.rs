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
use policy_common::{counters::ReasonCounters, endpoint::MAX_SANDBOXES};

use super::Reconciler;
use crate::{
    agent::{
        error::AgentError,
        interface_state::{InterfaceState, namespace_id},
        sandbox::{
            AttachPoint, EnforcementStatus, Sandbox, active_policy::ActivePolicy,
            endpoint_addresses_for, interface_for, lifetime::SandboxLifetime,
        },
    },
    dataplane::{HostInterface, PolicyId, Slot},
    policy::{CompiledPolicy, SandboxId, SandboxSpec},
};

/// How often gates are attached that somebody takes off at once.
const ATTACH_ATTEMPTS: usize = 3;
/// What cannot be done without a door.
const REDIRECT_FAILED: &str = "cannot open its way to the egress proxy";

/// A sandbox that was asked for and found right.
pub struct ValidatedSandbox {
    pub(crate) base_spec: Arc<SandboxSpec>,
    pub(crate) active_policy: Arc<ActivePolicy>,
    pub(crate) compiled: CompiledPolicy,
}

/// A candidate with a slot.
pub struct StagedChange {
    pub(crate) sandbox: Sandbox,
    pub(crate) compiled: CompiledPolicy,
    pub(crate) previous: Option<Arc<Sandbox>>,
}

impl StagedChange {
    /// The change that puts the policy of a sandbox in force where it already is.
    pub(crate) fn for_republish(sandbox: &Arc<Sandbox>, compiled: CompiledPolicy) -> Self {
        Self { sandbox: Sandbox::clone(sandbox), compiled, previous: Some(sandbox.clone()) }
    }

    /// The sandbox that changes.
    pub fn id(&self) -> &SandboxId {
        self.sandbox.id()
    }

    /// Whether the sandbox is attached to another slot, or not at all.
    pub(crate) fn has_new_slot(&self) -> bool {
        self.previous.as_ref().is_none_or(|old| old.slot != self.sandbox.slot)
    }
}

impl Reconciler {
    /// Makes everything ready that can be undone without a trace. `life`: what a new sandbox has
    /// instead of a plain one.
    pub(crate) fn stage(
        &mut self,
        validated: ValidatedSandbox,
        lifetime: Option<SandboxLifetime>,
    ) -> Result<StagedChange, AgentError> {
        let previous = self.registry.get(&validated.base_spec.sandbox_id);
        let unmoved = previous.as_ref().filter(|old| old.has_same_endpoint(&validated.base_spec));
        let lifetime = match (&previous, lifetime) {
            (Some(previous), _) => previous.lifetime.clone(),
            (None, Some(lifetime)) => Arc::new(lifetime),
            (None, None) => {
                Arc::new(SandboxLifetime::without_lease().map_err(AgentError::Internal)?)
            }
        };
        let slot = match unmoved {
            Some(previous) => previous.slot,
            None => self.allocate_slot(&validated.base_spec)?,
        };
        let ValidatedSandbox { base_spec, active_policy, compiled } = validated;
        let sandbox = match unmoved {
            Some(previous) => Sandbox { base_spec, active_policy, ..Sandbox::clone(previous) },
            None => denying_sandbox(
                self.interface_pool.pin_name(&base_spec),
                base_spec,
                active_policy,
                slot,
                lifetime,
            ),
        };
        let change = StagedChange { sandbox, compiled, previous };
        let change = match self.persist_and_attach(&change) {
            Ok(attach_point) => StagedChange {
                sandbox: Sandbox {
                    attach_point: attach_point.or(change.sandbox.attach_point),
                    ..change.sandbox
                },
                ..change
            },
            Err((failure, cause)) => return Err(self.roll_back(change, failure, cause)),
        };
        match self.open_listeners_if_present(&change.sandbox) {
            Ok(()) => Ok(change),
            Err(cause) => Err(self.roll_back(change, REDIRECT_FAILED, cause)),
        }
    }

    fn allocate_slot(&mut self, spec: &SandboxSpec) -> Result<Slot, AgentError> {
        let id = &spec.sandbox_id;
        let Some(slot) = self.slot_allocator.allocate() else {
            return Err(AgentError::SlotsExhausted {
                sandbox: id.clone(),
                limit: MAX_SANDBOXES - 1,
            });
        };
        self.attribution.assign_slot(slot, id);
        self.dataplane.prepare_slot(slot, &endpoint_addresses_for(spec)).map_err(|cause| {
            self.release_slot(slot);
            AgentError::Failed {
                sandbox: id.clone(),
                failure: "cannot prepare its slot",
                consequence: "nothing was changed",
                cause,
            }
        })?;
        Ok(slot)
    }

    /// On disk first: what is attached is known to the next agent, too.
    fn persist_and_attach(
        &self,
        change: &StagedChange,
    ) -> Result<Option<AttachPoint>, (&'static str, anyhow::Error)> {
        let record = change.sandbox.to_record();
        self.store.save(&record).map_err(|error| ("cannot write it to disk", error))?;
        // Gates that are in force stay until the policy is: in a slot that denies everything, what the
        // sandbox may reach would be cut off in between.
        if change.previous.is_some() || change.sandbox.is_pinned_in(&self.orphaned_pins) {
            return Ok(None);
        }
        let Sandbox { pin_name, slot, base_spec, .. } = &change.sandbox;
        let attach_point = self.attach_gates(pin_name, *slot, &interface_for(base_spec));
        attach_point.map(Some).map_err(|error| ("cannot attach to its interface", error))
    }

    /// The policy is in force in the slot: makes the slot the sandbox's.
    pub(crate) fn activate(
        &mut self,
        change: StagedChange,
        policy_id: PolicyId,
    ) -> Result<(), AgentError> {
        let mut sandbox = Sandbox { policy_id: Some(policy_id), ..change.sandbox.clone() };
        let attached = match &change.previous {
            None if sandbox.attach_point.is_some() => Ok(()),
            None => self.attach_sandbox(&mut sandbox),
            Some(_) if change.has_new_slot() => self.switch_slot(&mut sandbox),
            Some(_) => self.ensure_attached(&mut sandbox),
        };
        if let Err(cause) = attached {
            return Err(self.roll_back(change, "cannot attach it to its interface", cause));
        }
        if let Err(cause) = self.sync_proxy_policy(&sandbox) {
            return Err(self.roll_back(change, REDIRECT_FAILED, cause));
        }
        if let Some(previous) = change.previous.as_ref().filter(|_| change.has_new_slot()) {
            sandbox.previous_counters = Arc::new(self.accumulated_counters(previous));
            match self.detach_previous(previous, &sandbox) {
                Ok(()) => self.release_slot(previous.slot),
                // Its slot stays taken: the gates may name it.
                Err(error) => {
                    tracing::error!(sandbox = %previous.id(), "cannot leave its old interface: {error:#}");
                }
            }
        }
        tracing::info!(sandbox = %sandbox.id(), policy = policy_id.0, "policy in force");
        self.detach_orphan(&sandbox);
        self.registry.insert(sandbox);
        Ok(())
    }

    /// Points an attached sandbox to its new slot, in one step for every packet. The interface may
    /// be missing if that is known already.
    fn switch_slot(&self, sandbox: &mut Sandbox) -> Result<()> {
        match self.dataplane.interface_state(&interface_for(&sandbox.base_spec)) {
            InterfaceState::Present(_) => {
                self.attach_sandbox(sandbox)?;
                sandbox.status = EnforcementStatus::Enforcing;
                return Ok(());
            }
            // Gates that may be on a living interface are not taken off.
            InterfaceState::Unknown(problem) => bail!("cannot look for its interface: {problem}"),
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => {}
        }
        self.dataplane.detach(&sandbox.pin_name)?;
        (sandbox.attach_point, sandbox.status) = (None, EnforcementStatus::InterfaceMissing);
        Ok(())
    }

    /// Makes sure that a sandbox is still attached: its interface may be a new one of that name.
    fn ensure_attached(&self, sandbox: &mut Sandbox) -> Result<()> {
        if self.is_sandbox_attached(sandbox) {
            sandbox.status = EnforcementStatus::Enforcing;
            return Ok(());
        }
        self.switch_slot(sandbox)
    }

    /// Attaches a sandbox where its interface is now. In another namespace than before its door is
    /// of no use any more.
    pub(crate) fn attach_sandbox(&self, sandbox: &mut Sandbox) -> Result<()> {
        let before = sandbox.attach_point.and_then(|place| place.namespace);
        let attach_point =
            self.attach_gates(&sandbox.pin_name, sandbox.slot, &interface_for(&sandbox.base_spec))?;
        if before.is_some() && attach_point.namespace != before {
            self.close_proxy_listeners(sandbox.slot);
        }
        sandbox.attach_point = Some(attach_point);
        Ok(())
    }

    /// Attaches an interface to a slot, with gates that are pinned under this name: again where
    /// somebody takes them off meanwhile.
    pub(crate) fn attach_gates(
        &self,
        pin_name: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<AttachPoint> {
        let namespace_id = namespace_id(interface.netns.as_deref()).ok();
        let ifindex = self.dataplane.interface_state(interface).require_index(interface)?;
        for _ in 0..ATTACH_ATTEMPTS {
            self.dataplane.attach(pin_name, slot, interface)?;
            if self.dataplane.is_attached(pin_name, slot, interface)? {
                return Ok(AttachPoint { namespace: namespace_id, ifindex });
            }
        }
        bail!("interface: the gates on {} were taken off again at once", interface.name)
    }

    /// Takes off what an earlier agent attached for the sandbox under another name.
    fn detach_orphan(&mut self, sandbox: &Sandbox) {
        let id = sandbox.id().as_str();
        if !self.orphaned_pins.remove(id) || *sandbox.pin_name == *id {
            return;
        }
        if let Err(error) = self.dataplane.detach(id) {
            tracing::error!(sandbox = id, "cannot take off what an earlier agent left: {error:#}");
            self.orphaned_pins.insert(id.to_owned());
        }
    }

    /// Takes a sandbox off the interface that it had before, unless its gates went with it.
    pub(crate) fn detach_previous(&self, previous: &Sandbox, new: &Sandbox) -> Result<()> {
        if previous.pin_name == new.pin_name { Ok(()) } else { self.detach_sandbox(previous) }
    }

    /// Gives a slot back.
    pub(crate) fn release_slot(&mut self, slot: Slot) {
        self.close_proxy_listeners(slot);
        if let Err(error) = self.dataplane.release_slot(slot) {
            // It stays taken: a slot that could not be emptied is not given to another sandbox.
            tracing::error!(slot = slot.get(), "cannot empty a slot: {error:#}");
            return;
        }
        self.attribution.release_slot(slot);
        self.slot_allocator.free(slot);
    }

    /// What was counted for a sandbox until now, in all slots it had.
    fn accumulated_counters(&self, sandbox: &Sandbox) -> ReasonCounters {
        let mut sum = *sandbox.previous_counters;
        match self.dataplane.counters(sandbox.slot) {
            Ok(counters) => add_counters(&mut sum, &counters),
            Err(error) => tracing::warn!(sandbox = %sandbox.id(), "counters lost: {error:#}"),
        }
        sum
    }
}

/// Adds counters up.
pub(crate) fn add_counters(sum: &mut ReasonCounters, counters: &ReasonCounters) {
    for (total, counter) in sum.by_reason.iter_mut().zip(&counters.by_reason) {
        total.packets += counter.packets;
        total.bytes += counter.bytes;
    }
}

/// A sandbox in a slot that denies everything.
pub(crate) fn denying_sandbox(
    pin_name: Arc<str>,
    base_spec: Arc<SandboxSpec>,
    active_policy: Arc<ActivePolicy>,
    slot: Slot,
    lifetime: Arc<SandboxLifetime>,
) -> Sandbox {
    Sandbox {
        base_spec,
        active_policy,
        lifetime,
        pin_name,
        slot,
        policy_id: None,
        status: EnforcementStatus::Enforcing,
        attach_point: None,
        previous_counters: Arc::default(),
    }
}
