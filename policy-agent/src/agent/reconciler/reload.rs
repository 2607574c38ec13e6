//! Replaces the platform policy, which changes the policies of all sandboxes: all of them, or none.

use std::{collections::HashMap, sync::Arc};

use super::{Reconciler, stage::StagedChange};
use crate::{
    agent::{
        error::AgentError,
        sandbox::{
            Sandbox,
            active_policy::{ActivePolicy, PlatformPolicy},
        },
    },
    policy::{CompiledPolicy, Floor, NetworkConfig, Policy},
};

/// Maximum number of sandboxes whose compiled policies are in memory at the same time.
const RECOMPILE_BATCH: usize = 64;
const PUBLISH_FAILED: &str = "cannot publish its policy";

/// A sandbox and the policy that it gets.
struct RebuiltPolicy {
    sandbox: Arc<Sandbox>,
    policy: Arc<Policy>,
}

/// A policy that the next sandbox may share.
struct RecompiledPolicy {
    policy: Arc<Policy>,
    active_policy: Arc<ActivePolicy>,
    compiled: CompiledPolicy,
}

/// Policies by what they are built from: the network configuration and the mode, which sandboxes with
/// equal ones share, and `allowInternetAccess`.
type PolicyCache = HashMap<(*const ActivePolicy, Option<bool>), Arc<Policy>>;

impl Reconciler {
    /// Puts a platform policy in force for all sandboxes, and returns the number of sandboxes whose
    /// policies changed.
    ///
    /// # Errors
    /// The policy of a sandbox would be invalid, or cannot be published. All sandboxes keep their
    /// policies.
    pub(crate) fn replace_platform_policy(
        &mut self,
        platform_policy: PlatformPolicy,
    ) -> Result<usize, AgentError> {
        let rebuilt = self.rebuild_policies(&platform_policy)?;
        self.floors.replace_lists(&platform_policy.floor);
        // First, so that the egress proxy dials nothing that the new floor denies.
        let previous = self.platform_policy.replace(Arc::new(platform_policy));
        let mut replaced = Vec::new();
        for batch in rebuilt.chunks(RECOMPILE_BATCH) {
            if let Err(error) = self.publish_rebuilt(batch, &mut replaced) {
                self.floors.replace_lists(&previous.floor);
                self.platform_policy.replace(previous);
                self.restore_policies(&replaced);
                return Err(error);
            }
        }
        Ok(replaced.len())
    }

    /// Builds the policies of all sandboxes, equal ones next to each other.
    fn rebuild_policies(
        &self,
        platform_policy: &PlatformPolicy,
    ) -> Result<Vec<RebuiltPolicy>, AgentError> {
        let mut sandboxes = self.registry.all();
        sandboxes.sort_by_key(|sandbox| Arc::as_ptr(&sandbox.active_policy));
        let mut cache = PolicyCache::new();
        let mut rebuilt = Vec::with_capacity(sandboxes.len());
        for sandbox in sandboxes {
            let allow_internet_access = sandbox.base_spec.allow_internet_access;
            let key = (Arc::as_ptr(&sandbox.active_policy), allow_internet_access);
            let policy = match cache.get(&key) {
                Some(policy) => Arc::clone(policy),
                None => {
                    let network = &sandbox.active_policy.network;
                    let policy =
                        platform_policy.policy_for_accepted_network(network, allow_internet_access);
                    let policy = policy
                        .map_err(|invalid| AgentError::for_sandbox(sandbox.id(), invalid))?
                        .with_mode(sandbox.base_spec.mode);
                    Arc::clone(cache.entry(key).or_insert(Arc::new(policy)))
                }
            };
            rebuilt.push(RebuiltPolicy { sandbox, policy });
        }
        Ok(rebuilt)
    }

    /// Compiles and publishes these policies. Adds the sandboxes as they were before to `replaced`.
    fn publish_rebuilt(
        &mut self,
        batch: &[RebuiltPolicy],
        replaced: &mut Vec<Arc<Sandbox>>,
    ) -> Result<(), AgentError> {
        let changes = self.compile_rebuilt(batch);
        let mut failed = None;
        for (change, published) in self.publisher.publish_all(changes) {
            match published {
                Ok(policy_id) => {
                    replaced.extend(change.previous);
                    let policy_id = Some(policy_id);
                    self.follow_published(Sandbox { policy_id, ..change.sandbox });
                }
                Err(cause) => failed = Some((change.sandbox, cause)),
            }
        }
        let Some((sandbox, cause)) = failed else { return Ok(()) };
        let (sandbox, consequence) = (sandbox.id().clone(), "nothing was changed");
        Err(AgentError::Failed { sandbox, failure: PUBLISH_FAILED, consequence, cause })
    }

    /// The changes of those sandboxes whose policy or floor differs from before.
    fn compile_rebuilt(&mut self, batch: &[RebuiltPolicy]) -> Vec<StagedChange> {
        let mut changes = Vec::<StagedChange>::with_capacity(batch.len());
        let mut last = None;
        for RebuiltPolicy { sandbox, policy } in batch {
            let floor = self.floors.get_or_refresh(sandbox.base_spec.netns.as_deref());
            let before = &sandbox.active_policy;
            if floor == before.floor && **policy == before.policy {
                continue;
            }
            let same = |last: &RecompiledPolicy| {
                Arc::ptr_eq(&last.policy, policy) && last.active_policy.floor == floor
            };
            let recompiled = last
                .take()
                .filter(same)
                .unwrap_or_else(|| self.recompile(&before.network, policy, &floor));
            changes.push(StagedChange {
                sandbox: Sandbox {
                    active_policy: Arc::clone(&recompiled.active_policy),
                    ..Sandbox::clone(sandbox)
                },
                compiled: recompiled.compiled.clone(),
                previous: Some(Arc::clone(sandbox)),
            });
            last = Some(recompiled);
        }
        changes
    }

    fn recompile(
        &mut self,
        network: &NetworkConfig,
        policy: &Arc<Policy>,
        floor: &Arc<Floor>,
    ) -> RecompiledPolicy {
        let (active_policy, compiled) =
            self.policy_interner.compile_shared(network.clone(), Policy::clone(policy), floor);
        RecompiledPolicy { policy: Arc::clone(policy), active_policy, compiled }
    }

    /// Passes a published policy on to the egress proxy and to readers.
    fn follow_published(&self, mut sandbox: Sandbox) {
        self.reconcile_redirects(&mut sandbox, None);
        self.registry.insert(sandbox);
    }

    /// Publishes the previous policies of these sandboxes again. They were in force before, so there
    /// is room for them.
    fn restore_policies(&self, replaced: &[Arc<Sandbox>]) {
        for batch in replaced.chunks(RECOMPILE_BATCH) {
            let republish = |sandbox: &Arc<Sandbox>| {
                StagedChange::for_republish(sandbox, sandbox.active_policy.compile())
            };
            let changes = batch.iter().map(republish).collect();
            for (change, published) in self.publisher.publish_all(changes) {
                match published {
                    Ok(policy_id) => {
                        let policy_id = Some(policy_id);
                        self.follow_published(Sandbox { policy_id, ..change.sandbox });
                    }
                    // The next scan restores it: the floor of its policy is not the one in force.
                    Err(error) => tracing::error!(
                        sandbox = %change.id(),
                        "cannot publish its previous policy again: {error:#}"
                    ),
                }
            }
        }
    }
}
