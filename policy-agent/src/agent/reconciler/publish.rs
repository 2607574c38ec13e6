//! Publishes many policies, equal ones once.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, anyhow};

use super::stage::StagedChange;
use crate::{
    agent::{
        dataplane_control::DataplaneControl,
        sandbox::{Sandbox, attribution::EventAttribution},
    },
    dataplane::{PolicyDigest, PolicyId, Slot},
};

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
        self.attribution.update_while_publishing(|update| {
            let mut results = Vec::new();
            for group in groups.into_values() {
                let group_result = self.publish_observing(&group);
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

    /// Publishes one policy. Flows of observed sandboxes are reported from before it passes them.
    fn publish_observing(&self, group: &[StagedChange]) -> PublishResult {
        for change in group {
            let Sandbox { slot, active_policy, .. } = &change.sandbox;
            if active_policy.policy.is_observed() {
                self.dataplane.set_observed(*slot, true)?;
            }
        }
        let published = self.publish_group(group)?;
        for change in group {
            let Sandbox { slot, active_policy, .. } = &change.sandbox;
            if !active_policy.policy.is_observed() {
                self.dataplane.set_observed(*slot, false)?;
            }
        }
        Ok(published)
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
