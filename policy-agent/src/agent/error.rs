//! Why the agent does not do what it is asked to: what a caller may branch on.

use thiserror::Error;

use crate::policy::{SandboxId, ValidationError};

/// Why a change was not made. What was in force stays in force.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error("{}{invalid}", sandbox_prefix(.sandbox.as_ref()))]
    Invalid {
        /// The sandbox it is for, where there may be several.
        sandbox: Option<SandboxId>,
        /// Field, entry and problem.
        invalid: ValidationError,
    },
    /// There is no such sandbox.
    #[error("there is no sandbox {0:?}; list them to see which there are")]
    UnknownSandbox(String),
    /// No more sandboxes fit.
    #[error("sandbox {sandbox}: all {limit} places are taken: delete a sandbox first")]
    SlotsExhausted {
        /// The one that does not fit.
        sandbox: SandboxId,
        /// How many fit.
        limit: u32,
    },
    /// No interface of `[[interfaces]]` is free.
    #[error(
        "no interface of [[interfaces]] is free: end a sandbox first, or name more interfaces in the \
         agent's configuration"
    )]
    NoFreeInterface,
    /// An idempotency key was used before, with another wish.
    #[error(
        "sandbox {0} was created with this idempotency key, but as something else: use another key"
    )]
    IdempotencyKeyReused(SandboxId),
    /// The kernel or the disk refused.
    #[error("sandbox {sandbox}: {failure}; {consequence}")]
    Failed {
        /// The sandbox to change.
        sandbox: SandboxId,
        /// What could not be done.
        failure: &'static str,
        /// What holds now.
        consequence: &'static str,
        /// Why.
        #[source]
        cause: anyhow::Error,
    },
    /// A fault of the agent itself.
    #[error("the agent failed inside; its log says more")]
    Internal(#[source] anyhow::Error),
}

impl AgentError {
    /// Says for which sandbox a configuration is wrong.
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
