//! What may be asked of the agent, by its users and by its own watchers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::anyhow;

use super::{
    error::AgentError,
    pooled_interface::PooledInterface,
    reconciler::{ApplyResults, create::CreateRequest},
    sandbox::Sandbox,
};
use crate::policy::{NetworkConfig, SandboxId, SandboxSpec};

/// One command. The reconciler executes them one after the other.
pub(crate) enum AgentCommand {
    /// Create or replace sandboxes, all of which are checked before the first is changed.
    Apply {
        /// The sandboxes.
        specs: Vec<SandboxSpec>,
        /// Whether they may be on an interface that the host needs for itself.
        force: bool,
    },
    /// Replace the egress fields of a sandbox.
    UpdateNetwork(String, Box<NetworkConfig>),
    /// Create a sandbox on an interface of the pool.
    Create(Box<CreateRequest>),
    /// Delete a sandbox.
    Delete(String),
    /// Make the lease of a sandbox end after this time from now.
    RenewLease(String, Duration),
    /// Delete the sandboxes whose leases are over.
    DeleteExpired,
    /// Publish and attach sandboxes again, where that is needed.
    ReconcileSandboxes(Vec<SandboxId>),
    /// Block those of these interfaces that are idle.
    BlockIdleInterfaces(Vec<PooledInterface>),
    /// Learn which addresses the host has in these network namespaces.
    RefreshHostAddresses(Vec<Option<PathBuf>>),
    /// Forget what is not used any more, and pin again what should be pinned.
    PruneAndRepin,
}

/// What a command has done.
#[derive(Debug)]
pub(crate) enum CommandReply {
    /// The result of each sandbox of a change of policies.
    Applied(ApplyResults),
    /// The sandbox that was created.
    Created(Arc<Sandbox>),
    /// The sandbox whose lease was renewed.
    Renewed(Arc<Sandbox>),
    /// How many sandboxes could not be deleted though their leases are over.
    StillExpired(usize),
    /// Nothing more to say.
    Done,
}

/// The reply to a command, or why it was not executed.
pub(crate) type CommandResult = Result<CommandReply, AgentError>;

impl AgentCommand {
    /// Whether the kernel can wait one grace period for this command and others together.
    pub(crate) const fn shares_grace_period(&self) -> bool {
        matches!(self, Self::Apply { .. } | Self::UpdateNetwork(..))
    }
}

impl CommandReply {
    /// Whether policies were changed, and all of them are in force.
    pub(crate) fn is_enforced(&self) -> bool {
        match self {
            Self::Applied(results) => results.iter().all(|(_, result)| result.is_ok()),
            Self::Created(_) => true,
            Self::Renewed(_) | Self::StillExpired(_) | Self::Done => false,
        }
    }

    /// The results of a change of policies.
    pub(crate) fn into_results(self) -> Result<ApplyResults, AgentError> {
        match self {
            Self::Applied(results) => Ok(results),
            other => Err(other.mismatch()),
        }
    }

    /// The sandbox that was created or whose lease was renewed.
    pub(crate) fn into_sandbox(self) -> Result<Arc<Sandbox>, AgentError> {
        match self {
            Self::Created(sandbox) | Self::Renewed(sandbox) => Ok(sandbox),
            other => Err(other.mismatch()),
        }
    }

    fn mismatch(&self) -> AgentError {
        AgentError::Internal(anyhow!("the reply does not fit the command: {self:?}"))
    }
}
