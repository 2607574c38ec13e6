//! Changes of one list or of the mode of a sandbox, and the end of what is temporary.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Reconciler, validate::ValidatedSandbox};
use crate::{
    agent::{error::AgentError, sandbox::Sandbox},
    policy::{ListChange, ListEdit, PolicyMode, ValidationError},
};

impl Reconciler {
    /// Validates a change of one list of a sandbox. Its temporary entries may end only in policies
    /// that are valid too.
    pub(crate) fn validate_edit(
        &mut self,
        id: &str,
        edit: &ListEdit,
    ) -> Result<(ValidatedSandbox, ListChange), AgentError> {
        let sandbox = self.registry.require(id)?;
        let floor = Arc::clone(&sandbox.active_policy.floor);
        let mut spec = sandbox.spec();
        let change = edit.edit_spec(&mut spec)?;
        let policy = self.validate_policy(&spec)?;
        edit.check_effect(&policy, &floor)?;
        for until in spec.critical_expiries() {
            let mut later = spec.clone();
            later.remove_expired(until);
            self.validate_policy(&later).map_err(|invalid| {
                let problem =
                    format!("when entries end at {until}, the rest is invalid: {invalid}");
                ValidationError::about_field("for", problem)
            })?;
        }
        Ok((self.build_validated(spec, policy, &floor), change))
    }

    /// Returns whether a sandbox is like this already.
    pub(crate) fn is_unchanged(&self, validated: &ValidatedSandbox) -> bool {
        self.registry.get(&validated.base_spec.sandbox_id).is_some_and(|known| {
            known.base_spec == validated.base_spec
                && known.active_policy.network == validated.active_policy.network
        })
    }

    /// Validates a change of the mode of a sandbox.
    pub(crate) fn validate_mode(
        &mut self,
        id: &str,
        mode: PolicyMode,
        until: Option<Timestamp>,
    ) -> Result<ValidatedSandbox, AgentError> {
        let sandbox = self.registry.require(id)?;
        let mut spec = sandbox.spec();
        match mode {
            PolicyMode::Observe => spec.observe(until),
            PolicyMode::Enforce => spec.enforce(),
        }
        let policy = self.validate_policy(&spec)?;
        Ok(self.build_validated(spec, policy, &sandbox.active_policy.floor))
    }

    /// Removes temporary entries and observations that have ended. Errors are logged; the entries then stay until the
    /// next attempt.
    pub(crate) fn remove_expired_entries(&mut self) {
        let now = Timestamp::now();
        for sandbox in self.registry.all() {
            if sandbox.base_spec.next_expiry().is_none_or(|next| next > now) {
                continue;
            }
            if let Err(error) = self.remove_expired_of(&sandbox, now).map_err(anyhow::Error::new) {
                tracing::error!(sandbox = %sandbox.id(), "temporary entries stay: {error:#}");
            }
        }
    }

    fn remove_expired_of(&mut self, sandbox: &Sandbox, now: Timestamp) -> Result<(), AgentError> {
        let mut spec = sandbox.spec();
        let expired = spec.remove_expired(now);
        let observation_ended = spec.end_observation(now);
        let policy = self.validate_policy(&spec)?;
        let validated = self.build_validated(spec, policy, &sandbox.active_policy.floor);
        let change = self.allocate(validated, None)?;
        self.commit_one(change)?;
        for entry in expired {
            tracing::info!(
                sandbox = %sandbox.id(), list = entry.list.name(), entry = entry.entry,
                "a temporary entry has ended"
            );
        }
        if observation_ended {
            tracing::info!(sandbox = %sandbox.id(), "no longer observed: its time is over");
        }
        Ok(())
    }
}
