//! The flows and denials of all sandboxes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;

use super::{
    flow_destination_key::FlowDestinationKey,
    flow_table::FlowTable,
    recorded_flow::{FlowDecision, RecordedFlow},
};
use crate::{
    events::PolicyEvent,
    policy::{DomainName, DomainPattern, SandboxId},
};

/// Flows of one sandbox and decision.
const MAX_FLOWS_PER_TABLE: usize = 256;
/// Flows of all sandboxes, above which each table has [`RESERVED_FLOWS_PER_TABLE`] only.
const MAX_FLOWS: usize = 65_536;
/// Flows of one sandbox and decision that no other sandbox can take.
const RESERVED_FLOWS_PER_TABLE: usize = 16;

/// The record of all sandboxes.
#[derive(Debug, Default)]
pub struct FlowRecord {
    sandboxes: RwLock<HashMap<SandboxId, Arc<Mutex<SandboxFlows>>>>,
    total: AtomicUsize,
    /// The number of the latest change.
    changes: AtomicU64,
}

/// The flows of one sandbox. Denials do not displace flows that pass.
#[derive(Debug, Default)]
struct SandboxFlows {
    passed: FlowTable,
    denied: FlowTable,
}

/// Which entries of the record to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowSelection {
    /// What was denied, or would have been.
    Denials,
    /// Everything.
    All,
}

/// Selects entries of the record.
#[derive(Clone, Debug)]
pub struct FlowQuery {
    /// Only of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Which entries.
    pub selection: FlowSelection,
    /// Only with this reason, by its label.
    pub reason: Option<&'static str>,
    /// Only those that were seen from this time on.
    pub since: Option<Timestamp>,
    /// Only names that match.
    pub name: Option<DomainPattern>,
    /// Only those that changed after this change.
    pub changed_after: u64,
    /// Only so many, the ones seen last.
    pub last: Option<usize>,
}

impl FlowQuery {
    /// A query for all entries.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            sandbox: None,
            selection: FlowSelection::All,
            reason: None,
            since: None,
            name: None,
            changed_after: 0,
            last: None,
        }
    }

    fn matches(&self, flow: &RecordedFlow) -> bool {
        let is_selected = match self.selection {
            FlowSelection::Denials => flow.decision != FlowDecision::Allowed,
            FlowSelection::All => true,
        };
        let has_name = |pattern: &DomainPattern| {
            let name = flow.name.as_deref().and_then(|name| DomainName::parse_requested(name).ok());
            name.is_some_and(|name| pattern.matches(&name))
        };
        is_selected
            && self.reason.is_none_or(|label| label == flow.reason)
            && self.since.is_none_or(|since| since <= flow.last_seen)
            && self.name.as_ref().is_none_or(has_name)
    }
}

impl FlowRecord {
    /// Adds an event.
    pub fn observe(&self, event: &PolicyEvent) {
        let Some(key) = FlowDestinationKey::of_event(event) else { return };
        let sandbox = self.sandbox(&event.sandbox_id);
        let mut flows = lock(&sandbox);
        let changed = self.next_change();
        let grew = flows.table(key.decision).add(key, event, changed, self.bound());
        self.total.fetch_add(usize::from(grew), Ordering::Relaxed);
    }

    /// Adds an entry of an earlier agent.
    pub(super) fn restore(&self, entry: RecordedFlow) {
        let sandbox = self.sandbox(&entry.sandbox_id);
        let mut flows = lock(&sandbox);
        let changed = self.next_change();
        let grew = flows.table(entry.decision).restore(entry, changed, self.bound());
        self.total.fetch_add(usize::from(grew), Ordering::Relaxed);
    }

    /// The entries that a query selects, the ones seen last first.
    #[must_use]
    pub fn entries(&self, query: &FlowQuery) -> Vec<RecordedFlow> {
        let mut entries = Vec::new();
        for (id, sandbox) in self.sandboxes_of(query.sandbox.as_ref()) {
            let sandbox = lock(&sandbox);
            for table in [&sandbox.passed, &sandbox.denied] {
                let changed = table.entries(&id, query.changed_after).map(|(_, flow)| flow);
                entries.extend(changed.filter(|flow| query.matches(flow)));
            }
        }
        entries.sort_by(|one, other| {
            other.last_seen.cmp(&one.last_seen).then_with(|| one.sandbox_id.cmp(&other.sandbox_id))
        });
        entries.truncate(query.last.unwrap_or(usize::MAX));
        entries
    }

    /// At most so many entries that changed after a change, those that changed first, each with the
    /// number of its latest change.
    pub(super) fn changed_entries(&self, after: u64, limit: usize) -> Vec<(u64, RecordedFlow)> {
        let mut changed = Vec::new();
        for (id, sandbox) in self.sandboxes_of(None) {
            let sandbox = lock(&sandbox);
            for table in [&sandbox.passed, &sandbox.denied] {
                changed.extend(table.entries(&id, after));
            }
        }
        changed.sort_unstable_by_key(|(change, _)| *change);
        changed.truncate(limit);
        changed
    }

    /// The number of a new change. Called under the lock of its sandbox, so that who asks for
    /// [`Self::latest_change`] before reading the sandboxes sees all changes up to it.
    fn next_change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of the latest change.
    #[must_use]
    pub fn latest_change(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether there is an entry of this sandbox.
    #[must_use]
    pub fn has_sandbox(&self, id: &str) -> bool {
        self.sandboxes.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Drops what was last seen before `oldest`, of sandboxes that have ended before `oldest_ended`.
    pub(super) fn prune(
        &self,
        oldest: Timestamp,
        oldest_ended: Timestamp,
        is_running: impl Fn(&SandboxId) -> bool,
    ) {
        for (id, sandbox) in self.sandboxes_of(None) {
            let oldest = if is_running(&id) { oldest } else { oldest_ended };
            let mut sandbox = lock(&sandbox);
            let dropped = sandbox.passed.drop_older(oldest) + sandbox.denied.drop_older(oldest);
            drop(sandbox);
            self.total.fetch_sub(dropped, Ordering::Relaxed);
        }
        let mut sandboxes = self.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        sandboxes.retain(|_, sandbox| {
            // Someone who has the table at this moment is about to add to it.
            Arc::strong_count(sandbox) > 1 || !lock(sandbox).is_empty()
        });
    }

    /// The number of flows that a table may have now.
    fn bound(&self) -> usize {
        if self.total.load(Ordering::Relaxed) < MAX_FLOWS {
            MAX_FLOWS_PER_TABLE
        } else {
            RESERVED_FLOWS_PER_TABLE
        }
    }

    fn sandbox(&self, id: &SandboxId) -> Arc<Mutex<SandboxFlows>> {
        let known = self.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = known.get(id) {
            return Arc::clone(sandbox);
        }
        drop(known);
        let mut sandboxes = self.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sandboxes.entry(id.clone()).or_default())
    }

    fn sandboxes_of(&self, only: Option<&SandboxId>) -> Vec<(SandboxId, Arc<Mutex<SandboxFlows>>)> {
        let sandboxes = self.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
        let selected = |(id, sandbox): (&SandboxId, &Arc<Mutex<SandboxFlows>>)| {
            (id.clone(), Arc::clone(sandbox))
        };
        match only {
            Some(id) => sandboxes.get_key_value(id).map(selected).into_iter().collect(),
            None => sandboxes.iter().map(selected).collect(),
        }
    }
}

impl SandboxFlows {
    fn is_empty(&self) -> bool {
        self.passed.is_empty() && self.denied.is_empty()
    }

    const fn table(&mut self, decision: FlowDecision) -> &mut FlowTable {
        match decision {
            FlowDecision::Denied | FlowDecision::WouldDeny => &mut self.denied,
            FlowDecision::Allowed => &mut self.passed,
        }
    }
}

/// A poisoned lock is usable: at worst a count is missing.
fn lock(sandbox: &Mutex<SandboxFlows>) -> MutexGuard<'_, SandboxFlows> {
    sandbox.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
