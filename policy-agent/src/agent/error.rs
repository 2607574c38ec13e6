//! Why the agent does not do what it is asked to: what a caller may branch on.

use thiserror::Error;

use crate::policy::{Invalid, SandboxId};

/// Why a change was not made. What was in force stays in force.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error("{}{invalid}", prefix(.sandbox.as_ref()))]
    Invalid {
        /// The sandbox it is for, where there may be several.
        sandbox: Option<SandboxId>,
        /// Field, entry and problem.
        invalid: Invalid,
    },
    /// There is no such sandbox.
    #[error("there is no sandbox {0:?}; list them to see which there are")]
    Unknown(String),
    /// No more sandboxes fit.
    #[error("sandbox {sandbox}: all {limit} places are taken: delete a sandbox first")]
    Full {
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
    NoSlot,
    /// An idempotency key was used before, with another wish.
    #[error(
        "sandbox {0} was created with this idempotency key, but as something else: use another key"
    )]
    KeyReused(SandboxId),
    /// The kernel or the disk refused.
    #[error("sandbox {sandbox}: {task}; {kept}")]
    Failed {
        /// The sandbox to change.
        sandbox: SandboxId,
        /// What could not be done.
        task: &'static str,
        /// What holds now.
        kept: &'static str,
        /// Why.
        #[source]
        cause: anyhow::Error,
    },
    /// A fault of the agent itself.
    #[error("the agent failed inside; its log says more")]
    Internal(#[source] anyhow::Error),
}

impl Error {
    /// Says for which sandbox a configuration is wrong.
    pub fn invalid(sandbox: &SandboxId, invalid: Invalid) -> Self {
        Self::Invalid { sandbox: Some(sandbox.clone()), invalid }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid { sandbox: None, invalid }
    }
}

fn prefix(sandbox: Option<&SandboxId>) -> String {
    sandbox.map(|id| format!("sandbox {id}: ")).unwrap_or_default()
}
