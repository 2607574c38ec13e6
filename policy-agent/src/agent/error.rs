//! Errors of the agent that callers distinguish.

use thiserror::Error;

use crate::policy::{SandboxId, ValidationError};

/// Why a change was not made. The previous state stays in force.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The configuration is invalid.
    #[error("{}{invalid}", sandbox_prefix(.sandbox.as_ref()))]
    Invalid {
        /// The sandbox, if the request may contain several.
        sandbox: Option<SandboxId>,
        /// The field, the entry and the problem.
        invalid: ValidationError,
    },
    /// No sandbox has this ID.
    #[error("there is no sandbox {0:?}; list them to see which there are")]
    UnknownSandbox(String),
    /// All slots are in use.
    #[error("sandbox {sandbox}: all {limit} places are taken: delete a sandbox first")]
    SlotsExhausted {
        /// The sandbox that needs a slot.
        sandbox: SandboxId,
        /// The maximum number of sandboxes.
        limit: u32,
    },
    /// No interface of `[[interfaces]]` is free.
    #[error(
        "no interface of [[interfaces]] is free: end a sandbox first, or name more interfaces in the \
         agent's configuration"
    )]
    NoFreeInterface,
    /// The idempotency key was used before, with a different request.
    #[error(
        "sandbox {0} was created with this idempotency key, but as something else: use another key"
    )]
    IdempotencyKeyReused(SandboxId),
    /// The kernel or the disk reported an error.
    #[error("sandbox {sandbox}: {failure}; {consequence}")]
    Failed {
        /// The sandbox to change.
        sandbox: SandboxId,
        /// The operation that failed.
        failure: &'static str,
        /// The resulting state.
        consequence: &'static str,
        /// The reported error.
        #[source]
        cause: anyhow::Error,
    },
    /// An internal error of the agent.
    #[error("the agent failed")]
    Internal(#[source] anyhow::Error),
}

impl AgentError {
    /// Creates the error for an invalid configuration of this sandbox.
    pub fn for_sandbox(sandbox: &SandboxId, invalid: ValidationError) -> Self {
        Self::Invalid { sandbox: Some(sandbox.clone()), invalid }
    }
}

impl From<ValidationError> for AgentError {
    fn from(invalid: ValidationError) -> Self {
        Self::Invalid { sandbox: None, invalid }
    }
}

fn sandbox_prefix(sandbox: Option<&SandboxId>) -> String {
    sandbox.map(|id| format!("sandbox {id}: ")).unwrap_or_default()
}
