//! Staging: the steps of a change that can be undone completely. The other steps are in the other
//! modules. All changes of a batch make a step before any makes the next.
//!
//! ```text
//! validate   check the request
//! allocate   a slot, which denies everything
//! stage      write to disk, once for all · attach new sandboxes · open their proxy listeners
//! publish    put the policy in force in the slot
//! commit     point the gates of an attached sandbox to its new slot ·
//!            pass its policy to the proxy · update the registry · release the old slot
//! rollback   instead, if a step fails: the previous policy stays in force and on disk
//! ```
//!
//! A change is on disk before the kernel enforces it. If the agent dies in between, the next one
//! publishes it.

use std::sync::Arc;

use anyhow::{Result, anyhow};

use super::{ApplyResults, Reconciler, validate::ValidatedSandbox};
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

/// The failure to set up or update the proxy listeners.
pub(crate) const REDIRECT_FAILED: &str = "cannot open its way to the egress proxy";

/// A validated sandbox with a slot.
pub(crate) struct StagedChange {
    pub(crate) sandbox: Sandbox,
    pub(crate) compiled: CompiledPolicy,
    pub(crate) previous: Option<Arc<Sandbox>>,
}

impl StagedChange {
    /// Creates the change that republishes the policy of a sandbox in its current slot.
    pub(crate) fn for_republish(sandbox: &Arc<Sandbox>, compiled: CompiledPolicy) -> Self {
        Self { sandbox: Sandbox::clone(sandbox), compiled, previous: Some(Arc::clone(sandbox)) }
    }

    /// The ID of the sandbox.
    pub(crate) fn id(&self) -> &SandboxId {
        self.sandbox.id()
    }

    /// Returns whether the sandbox is new or gets another slot.
    pub(crate) fn has_new_slot(&self) -> bool {
        self.previous.as_ref().is_none_or(|old| old.slot != self.sandbox.slot)
    }
}

impl Reconciler {
    /// Gives a sandbox its slot. `lifetime` is that of a new sandbox with a lease.
    pub(crate) fn allocate(
        &mut self,
        validated: ValidatedSandbox,
        lifetime: Option<SandboxLifetime>,
    ) -> Result<StagedChange, AgentError> {
        let previous = self.registry.get(&validated.base_spec.sandbox_id);
        let unmoved = previous.as_ref().filter(|old| old.has_same_endpoint(&validated.base_spec));
        let lifetime = match (&previous, lifetime) {
            (Some(previous), _) => Arc::clone(&previous.lifetime),
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
        Ok(StagedChange { sandbox, compiled, previous })
    }

    /// Makes all preparations that can be undone completely, and undoes those that fail. Writes to
    /// disk first, so that the next agent knows all attached sandboxes.
    pub(crate) fn stage_all(
        &mut self,
        changes: Vec<StagedChange>,
        results: &mut ApplyResults,
    ) -> Vec<StagedChange> {
        let records: Vec<_> = changes.iter().map(|change| change.sandbox.to_record()).collect();
        let saved = self.store.save_all(&records);
        let problem = saved.err().map(|error| format!("{error:#}"));
        let mut staged = Vec::with_capacity(changes.len());
        for change in changes {
            let id = change.id().clone();
            let result = match &problem {
                Some(problem) => {
                    let cause = anyhow!(problem.clone());
                    Err(self.roll_back(change, "cannot write it to disk", cause))
                }
                None => self.attach_and_redirect(change),
            };
            match result {
                Ok(change) => staged.push(change),
                Err(error) => results.push((id, Err(error))),
            }
        }
        staged
    }

    /// Attaches a new sandbox, and opens its proxy listeners.
    fn attach_and_redirect(&mut self, change: StagedChange) -> Result<StagedChange, AgentError> {
        let mut change = change;
        match self.attach_if_new(&change) {
            Ok(None) => {}
            Ok(attached) => change.sandbox.attach_point = attached,
            Err(cause) => {
                return Err(self.roll_back(change, "cannot attach to its interface", cause));
            }
        }
        match self.redirects.open_if_present(&change.sandbox) {
            Ok(()) => Ok(change),
            Err(cause) => Err(self.roll_back(change, REDIRECT_FAILED, cause)),
        }
    }

    /// Gates that are in force stay as they are until the policy is published. In a slot that denies
    /// everything, the sandbox would lose its connections in between.
    fn attach_if_new(&self, change: &StagedChange) -> Result<Option<AttachPoint>> {
        if change.previous.is_some() || self.attachments.orphans.has_gates_of(&change.sandbox) {
            return Ok(None);
        }
        let Sandbox { pin_name, slot, base_spec, .. } = &change.sandbox;
        self.attachments.attach(pin_name, *slot, &interface_for(base_spec)).map(Some)
    }
}

/// Creates a sandbox in a slot that denies everything.
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
