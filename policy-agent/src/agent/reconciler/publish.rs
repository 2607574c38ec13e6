//! Publishes many policies: equal ones once, and the others in parallel, since each waits for a
//! grace period of the kernel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Result, anyhow};

use super::stage::StagedChange;
use crate::{
    agent::{dataplane_control::DataplaneControl, sandbox::attribution::EventAttribution},
    dataplane::{PolicyId, Slot},
};

/// Maximum number of grace periods to wait for at the same time.
const MAX_CONCURRENT_GRACE_PERIODS: usize = 32;

type PolicyDigest = [u8; 16];
type PublishResult = Result<PolicyId>;

/// Publishes policies and records their IDs for the attribution of events.
pub(crate) struct Publisher {
    dataplane: Arc<dyn DataplaneControl>,
    attribution: Arc<EventAttribution>,
}

impl Publisher {
    pub(crate) fn new(
        dataplane: Arc<dyn DataplaneControl>,
        attribution: Arc<EventAttribution>,
    ) -> Self {
        Self { dataplane, attribution }
    }

    /// Publishes the policies of all changes. On an error, the affected sandboxes keep their old
    /// policies.
    pub(crate) fn publish_all(
        &self,
        changes: Vec<StagedChange>,
    ) -> Vec<(StagedChange, PublishResult)> {
        let mut groups = HashMap::<PolicyDigest, Vec<StagedChange>>::new();
        for change in changes {
            groups.entry(change.sandbox.active_policy.digest).or_default().push(change);
        }
        let groups: Vec<Vec<StagedChange>> = groups.into_values().collect();
        self.attribution.update_while_publishing(|update| {
            let published = run_parallel(&groups, |group| self.publish_group(group));
            let mut results = Vec::new();
            for (group, group_result) in groups.into_iter().zip(published) {
                let problem = group_result.as_ref().err().map(|error| format!("{error:#}"));
                for change in group {
                    let result = match (&group_result, &problem) {
                        (Ok(policy), _) => Ok(*policy),
                        (Err(_), problem) => Err(anyhow!(problem.clone().unwrap_or_default())),
                    };
                    if let Ok(policy) = &result {
                        update.record_policy(
                            change.sandbox.slot,
                            *policy,
                            &change.sandbox.active_policy,
                        );
                    }
                    results.push((change, result));
                }
            }
            results
        })
    }

    /// Publishes one policy in those slots that do not have it yet.
    fn publish_group(&self, group: &[StagedChange]) -> PublishResult {
        let Some(first) = group.first() else { return Err(anyhow!("nothing to publish")) };
        let mut policy = None;
        let mut slots = Vec::<Slot>::new();
        for change in group {
            let slot = change.sandbox.slot;
            match self.dataplane.published_policy(slot)? {
                Some(published) if published.digest == change.sandbox.active_policy.digest => {
                    policy = Some(published.policy_id);
                }
                _ => slots.push(slot),
            }
        }
        match policy {
            Some(policy) if slots.is_empty() => Ok(policy),
            _ => self.dataplane.publish(&slots, &first.compiled),
        }
    }
}

/// Applies `work` to all items, several at a time. Returns the results in the order of the items.
fn run_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if let [only] = items {
        return vec![work(only)];
    }
    let next = Mutex::new(items.iter().enumerate());
    let next_item = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut indexed_results = thread::scope(|scope| {
        let worker =
            || std::iter::from_fn(&next_item).map(|(index, item)| (index, work(item))).collect();
        let workers =
            (0..items.len().min(MAX_CONCURRENT_GRACE_PERIODS)).map(|_| scope.spawn(worker));
        let workers: Vec<thread::ScopedJoinHandle<'_, Vec<(usize, R)>>> = workers.collect();
        workers.into_iter().flat_map(join_worker).collect::<Vec<_>>()
    });
    indexed_results.sort_by_key(|(index, _)| *index);
    indexed_results.into_iter().map(|(_, group_result)| group_result).collect()
}

fn join_worker<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
