//! A bounded table of flows. When it is full, the second-chance algorithm (CLOCK) displaces flows
//! that occurred once before those that recur, so that a scan of many destinations does not displace
//! what a sandbox does all the time. The counts of a displaced flow go into an entry for all
//! displaced ones of the same reason.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;

use super::{
    flow_destination_key::{FlowDestinationKey, event_address},
    recorded_flow::{FlowDecision, RecordedFlow},
};
use crate::{
    events::PolicyEvent,
    policy::{RuleRef, SandboxId},
};

/// How many rounds of displacement a recurring flow may survive without recurring.
const MAX_CHANCES: u8 = 3;

/// The flows of one sandbox with one kind of decision.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    flows: Vec<TrackedFlow>,
    index: HashMap<Arc<FlowDestinationKey>, usize>,
    /// The next candidate for displacement.
    hand: usize,
    /// The counts of displaced flows.
    merged: HashMap<(FlowDecision, &'static str), TrackedFlow>,
}

#[derive(Clone, Debug)]
struct TrackedFlow {
    key: Arc<FlowDestinationKey>,
    flow: FlowCounts,
    /// Rounds of displacement that it survives.
    chances: u8,
    /// The number of the last change, in the order of all changes of the record.
    changed: u64,
}

/// The part of an entry that changes.
#[derive(Clone, Debug)]
struct FlowCounts {
    first_seen: Timestamp,
    last_seen: Timestamp,
    rule: Option<RuleRef>,
    last_address: Option<IpAddr>,
    connections: u64,
    packets: u64,
    bytes: u64,
    merged: u64,
}

impl FlowTable {
    /// Adds an event. Returns whether the table grew. `bound` is the number of flows that it may
    /// have; a table that has more does not grow.
    pub(super) fn add(
        &mut self,
        key: FlowDestinationKey,
        event: &PolicyEvent,
        changed: u64,
        bound: usize,
    ) -> bool {
        if let Some(tracked) = self.index.get(&key).and_then(|place| self.flows.get_mut(*place)) {
            tracked.flow.add_event(event, key.inbound);
            tracked.chances = tracked.chances.saturating_add(1).min(MAX_CHANCES);
            tracked.changed = changed;
            return false;
        }
        let mut flow = FlowCounts::starting_at(event.time);
        flow.add_event(event, key.inbound);
        self.insert(TrackedFlow { key: Arc::new(key), flow, chances: 0, changed }, bound)
    }

    /// Adds an entry of an earlier agent. Returns whether the table grew.
    pub(super) fn restore(&mut self, entry: RecordedFlow, changed: u64, bound: usize) -> bool {
        let key = Arc::new(entry.key());
        let merged_key = (key.decision, key.reason);
        let is_merged = entry.merged > 0;
        let flow = FlowCounts {
            first_seen: entry.first_seen,
            last_seen: entry.last_seen,
            rule: entry.rule,
            last_address: entry.address,
            connections: entry.connections,
            packets: entry.packets,
            bytes: entry.bytes,
            merged: entry.merged,
        };
        let tracked = TrackedFlow { key: Arc::clone(&key), flow, chances: 1, changed };
        if is_merged {
            self.merged.insert(merged_key, tracked);
            return false;
        }
        match self.index.get(&*key).and_then(|place| self.flows.get_mut(*place)) {
            Some(known) => {
                *known = tracked;
                false
            }
            None => self.insert(tracked, bound),
        }
    }

    fn insert(&mut self, tracked: TrackedFlow, bound: usize) -> bool {
        if self.flows.len() < bound {
            self.index.insert(Arc::clone(&tracked.key), self.flows.len());
            self.flows.push(tracked);
            return true;
        }
        let Some(place) = self.displaced_place() else { return false };
        let changed = tracked.changed;
        self.index.insert(Arc::clone(&tracked.key), place);
        let displaced = std::mem::replace(&mut self.flows[place], tracked);
        self.index.remove(&displaced.key);
        self.merge(displaced, changed);
        false
    }

    /// The place of the flow to displace. Each step takes a chance away, so it ends after
    /// [`MAX_CHANCES`] rounds at most.
    fn displaced_place(&mut self) -> Option<usize> {
        loop {
            self.hand = if self.hand + 1 < self.flows.len() { self.hand + 1 } else { 0 };
            let candidate = self.flows.get_mut(self.hand)?;
            if candidate.chances == 0 {
                return Some(self.hand);
            }
            candidate.chances -= 1;
        }
    }

    /// Adds the counts of a displaced flow to those of the others.
    fn merge(&mut self, displaced: TrackedFlow, changed: u64) {
        let TrackedFlow { key, flow, .. } = displaced;
        let (decision, reason) = (key.decision, key.reason);
        let merged = self.merged.entry((decision, reason)).or_insert_with(|| TrackedFlow {
            key: Arc::new(FlowDestinationKey {
                decision,
                reason,
                protocol: None,
                address: None,
                port: None,
                name: None,
                inbound: false,
            }),
            flow: FlowCounts::starting_at(flow.first_seen),
            chances: 0,
            changed,
        });
        merged.changed = changed;
        merged.flow.add_displaced(&flow);
    }

    /// The entries that changed after the change `after`, with the number of their latest change.
    pub(super) fn entries<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        after: u64,
    ) -> impl Iterator<Item = (u64, RecordedFlow)> + 'a {
        let all = self.flows.iter().chain(self.merged.values());
        all.filter(move |tracked| tracked.changed > after)
            .map(move |tracked| (tracked.changed, tracked.to_recorded(sandbox)))
    }

    /// Drops flows that were last seen before a time. Returns how many.
    pub(super) fn drop_older(&mut self, oldest: Timestamp) -> usize {
        self.merged.retain(|_, tracked| tracked.flow.last_seen >= oldest);
        let before = self.flows.len();
        self.flows.retain(|tracked| tracked.flow.last_seen >= oldest);
        let dropped = before - self.flows.len();
        if dropped > 0 {
            let places = self.flows.iter().enumerate();
            self.index = places.map(|(place, tracked)| (Arc::clone(&tracked.key), place)).collect();
        }
        dropped
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.merged.is_empty()
    }
}

impl TrackedFlow {
    fn to_recorded(&self, sandbox: &SandboxId) -> RecordedFlow {
        let (key, flow) = (&*self.key, &self.flow);
        RecordedFlow {
            sandbox_id: sandbox.clone(),
            first_seen: flow.first_seen,
            last_seen: flow.last_seen,
            decision: key.decision,
            reason: key.reason,
            rule: flow.rule.clone(),
            protocol: key.protocol.clone(),
            address: flow.last_address,
            port: key.port,
            name: key.name.clone(),
            inbound: key.inbound,
            connections: flow.connections,
            packets: flow.packets,
            bytes: flow.bytes,
            merged: flow.merged,
        }
    }
}

impl FlowCounts {
    const fn starting_at(time: Timestamp) -> Self {
        Self {
            first_seen: time,
            last_seen: time,
            rule: None,
            last_address: None,
            connections: 0,
            packets: 0,
            bytes: 0,
            merged: 0,
        }
    }

    fn add_event(&mut self, event: &PolicyEvent, inbound: bool) {
        self.first_seen = self.first_seen.min(event.time);
        self.last_seen = self.last_seen.max(event.time);
        if self.rule != event.rule {
            self.rule.clone_from(&event.rule);
        }
        self.last_address = event_address(event, inbound);
        match event.length {
            Some(length) => {
                self.packets += 1;
                self.bytes += u64::from(length);
                // The kernel reports a flow that passes once.
                self.connections += u64::from(!event.is_denial());
            }
            None => self.connections += 1,
        }
    }

    fn add_displaced(&mut self, other: &Self) {
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.connections += other.connections;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.merged += other.merged.max(1);
    }
}
