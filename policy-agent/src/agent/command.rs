//! Commands to the agent, from its API and from its own watchers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::anyhow;
use jiff::Timestamp;

use super::{
    error::AgentError,
    pooled_interface::PooledInterface,
    reconciler::{ApplyResults, create::CreateRequest, single_result},
    sandbox::{Sandbox, active_policy::PlatformPolicy, issued_tokens::IssuedToken},
};
use crate::policy::{
    ContainerEndpoint, ListChange, ListEdit, NetworkConfig, PolicyMode, SandboxId, SandboxSpec,
};

/// A command. The reconciler executes one command or batch at a time.
pub(crate) enum AgentCommand {
    /// Create or replace sandboxes. All of them are validated before any is changed.
    Apply {
        /// The requested sandboxes.
        specs: Vec<SandboxSpec>,
        /// Whether to allow interfaces that the host itself needs.
        force: bool,
    },
    /// Replace the egress fields of a sandbox.
    UpdateNetwork(String, Box<NetworkConfig>),
    /// Validate sandboxes as [`Self::Apply`] does, and change nothing.
    Validate {
        /// The requested sandboxes.
        specs: Vec<SandboxSpec>,
        /// Whether to allow interfaces that the host itself needs.
        force: bool,
    },
    /// Change one list of a sandbox.
    EditList {
        /// The sandbox.
        id: String,
        /// The change.
        edit: Box<ListEdit>,
        /// Only validate it.
        dry_run: bool,
    },
    /// Observe a sandbox, until a time if there is one, or enforce its policy.
    SetMode {
        /// The sandbox.
        id: String,
        /// The mode.
        mode: PolicyMode,
        /// When an observation ends.
        until: Option<Timestamp>,
    },
    /// Move a sandbox to where its container is now. `None` if the container does not run.
    MoveContainer(SandboxId, Option<ContainerEndpoint>),
    /// Remove temporary entries and observations that have ended.
    RemoveExpiredEntries,
    /// Create a sandbox on an interface of the pool.
    Create(Box<CreateRequest>),
    /// Delete a sandbox.
    Delete(String),
    /// Set the lease of a sandbox to end after this time from now.
    RenewLease(String, Duration),
    /// Issue a traffic token for a sandbox that is valid for this time.
    IssueToken(String, Duration),
    /// Revoke the tokens that were issued for a sandbox.
    RevokeTokens(String),
    /// Delete the sandboxes whose leases have expired.
    DeleteExpired,
    /// Republish and reattach sandboxes where necessary.
    ReconcileSandboxes(Vec<SandboxId>),
    /// Block the idle interfaces among these.
    BlockIdleInterfaces(Vec<PooledInterface>),
    /// Read the host's addresses in these network namespaces from the kernel.
    RefreshHostAddresses(Vec<Option<PathBuf>>),
    /// Drop unused state and restore missing pins.
    PruneAndRepin,
    /// Put another platform policy in force for all sandboxes.
    ReplacePlatformPolicy(Box<PlatformPolicy>),
}

/// The reply to an executed command.
#[derive(Debug)]
pub(crate) enum CommandReply {
    /// The result of each sandbox of a policy change.
    Applied(ApplyResults),
    /// The result of a change of one list.
    Edited {
        /// What it changes.
        change: ListChange,
        /// The result of the sandbox, unless it was only validated.
        results: ApplyResults,
    },
    /// The created sandbox.
    Created(Arc<Sandbox>),
    /// The sandbox whose lease was renewed.
    Renewed(Arc<Sandbox>),
    /// The token that was issued.
    TokenIssued(IssuedToken),
    /// How many sandboxes with expired leases could not be deleted.
    StillExpired(usize),
    /// How many sandboxes have another policy because of a new platform policy.
    PoliciesReplaced(usize),
    /// Success without further data.
    Done,
}

/// The reply to a command, or the error that prevented it.
pub(crate) type CommandResult = Result<CommandReply, AgentError>;

/// Commands that can be executed together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchKind {
    /// Changes of policies.
    Change,
    /// Deletions.
    Delete,
}

impl AgentCommand {
    /// Returns which other commands this one can be executed with. `None` if it runs alone.
    pub(crate) const fn batch_kind(&self) -> Option<BatchKind> {
        match self {
            Self::Apply { .. }
            | Self::UpdateNetwork(..)
            | Self::EditList { .. }
            | Self::SetMode { .. } => Some(BatchKind::Change),
            Self::Delete(_) => Some(BatchKind::Delete),
            _ => None,
        }
    }
}

impl CommandReply {
    /// Returns whether the command changed policies and the kernel enforces all of them.
    pub(crate) fn is_enforced(&self) -> bool {
        match self {
            Self::Applied(results) => results.iter().all(|(_, result)| result.is_ok()),
            Self::Edited { results, .. } => {
                !results.is_empty() && results.iter().all(|(_, result)| result.is_ok())
            }
            Self::Created(_) => true,
            Self::Renewed(_)
            | Self::TokenIssued(_)
            | Self::StillExpired(_)
            | Self::PoliciesReplaced(_)
            | Self::Done => false,
        }
    }

    /// Returns the result of each sandbox of a policy change.
    pub(crate) fn into_results(self) -> Result<ApplyResults, AgentError> {
        match self {
            Self::Applied(results) => Ok(results),
            other => Err(other.mismatch()),
        }
    }

    /// The results that the sandboxes of a policy change are added to.
    pub(crate) const fn results_mut(&mut self) -> Option<&mut ApplyResults> {
        match self {
            Self::Applied(results) | Self::Edited { results, .. } => Some(results),
            _ => None,
        }
    }

    /// Returns what a change of one list changed.
    pub(crate) fn into_change(self) -> Result<ListChange, AgentError> {
        match self {
            Self::Edited { change, results } => single_result(results).map(|()| change),
            other => Err(other.mismatch()),
        }
    }

    /// Returns the created sandbox, or the one whose lease was renewed.
    pub(crate) fn into_sandbox(self) -> Result<Arc<Sandbox>, AgentError> {
        match self {
            Self::Created(sandbox) | Self::Renewed(sandbox) => Ok(sandbox),
            other => Err(other.mismatch()),
        }
    }

    /// Returns the token that was issued.
    pub(crate) fn into_token(self) -> Result<IssuedToken, AgentError> {
        match self {
            Self::TokenIssued(token) => Ok(token),
            other => Err(other.mismatch()),
        }
    }

    /// Returns how many sandboxes have another policy because of a new platform policy.
    pub(crate) fn into_replaced_policies(self) -> Result<usize, AgentError> {
        match self {
            Self::PoliciesReplaced(changed) => Ok(changed),
            other => Err(other.mismatch()),
        }
    }

    fn mismatch(&self) -> AgentError {
        AgentError::Internal(anyhow!("the reply does not fit the command: {self:?}"))
    }
}
