//! Staging: everything that can be undone without a trace. What follows is in the other files.
//!
//! ```text
//! validate   check what is asked for
//! stage      allocate and prepare a slot (it denies all) · write to disk · attach a new sandbox ·
//!            open its proxy listeners
//! publish    put the policy in force in the slot
//! commit     point an attached sandbox to its new slot · give the proxy its policy · show it in the
//!            registry · release the old slot
//! roll back  instead, when something fails: what was in force stays, and stays on disk
//! ```
//!
//! It is on disk before the kernel enforces it: if an agent dies in between, the next one publishes it.

use std::sync::Arc;

use super::{Reconciler, validate::ValidatedSandbox};
use crate::{
    agent::{
        error::AgentError,
        sandbox::{
            AttachPoint, EnforcementStatus, Sandbox, active_policy::ActivePolicy, interface_for,
            lifetime::SandboxLifetime,
        },
    },
    dataplane::Slot,
    policy::{CompiledPolicy, SandboxId, SandboxSpec},
};

/// What cannot be done without proxy listeners.
pub(crate) const REDIRECT_FAILED: &str = "cannot open its way to the egress proxy";

/// A validated sandbox with a slot.
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
    /// Makes everything ready that can be undone without a trace. `lifetime`: that of a new
    /// sandbox, if it has a lease.
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
            None => self.slots.allocate(&validated.base_spec)?,
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
        match self.redirects.open_if_present(&change.sandbox) {
            Ok(()) => Ok(change),
            Err(cause) => Err(self.roll_back(change, REDIRECT_FAILED, cause)),
        }
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
        if change.previous.is_some() || self.attachments.orphans.has_gates_of(&change.sandbox) {
            return Ok(None);
        }
        let Sandbox { pin_name, slot, base_spec, .. } = &change.sandbox;
        let attach_point = self.attachments.attach(pin_name, *slot, &interface_for(base_spec));
        attach_point.map(Some).map_err(|error| ("cannot attach to its interface", error))
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
