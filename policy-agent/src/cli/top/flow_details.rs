//! What one sandbox reaches and is denied: entries of the record, the newest first, and how often
//! each rule decided.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::{explain::format_rule, flow_output};

/// What identifies an entry: its decision, reason and destination.
type EntryKey = (String, String, String);

/// An entry of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlowEntry {
    /// `tcp example.com:443`
    pub(super) what: String,
    pub(super) decision: String,
    pub(super) reason: String,
    pub(super) rule: Option<String>,
    pub(super) count: u64,
    /// As the agent writes it, which sorts as time does.
    pub(super) last_seen: String,
    pub(super) allow_with: Option<String>,
}

impl FlowEntry {
    fn from_json(entry: &Value) -> Self {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Self {
            what: flow_output::format_destination(entry),
            decision: text("decision"),
            reason: text("reason"),
            rule: entry.get("rule").map(format_rule),
            count: flow_output::count(entry),
            last_seen: text("lastSeen"),
            allow_with: entry["allowWith"].as_str().map(str::to_owned),
        }
    }

    /// Whether the policy allows it.
    pub(super) fn is_allowed(&self) -> bool {
        self.decision == "allowed"
    }
}

/// The entries of one sandbox.
#[derive(Debug, Default)]
pub(super) struct FlowDetails {
    pub(super) sandbox: String,
    entries: BTreeMap<EntryKey, FlowEntry>,
    /// The first destination that is shown.
    pub(super) scrolled: usize,
}

impl FlowDetails {
    pub(super) fn new(sandbox: &str) -> Self {
        Self { sandbox: sandbox.to_owned(), ..Self::default() }
    }

    /// Adds entries, or replaces what was known of them.
    pub(super) fn add(&mut self, flows: &[Value]) {
        for entry in flows.iter().map(FlowEntry::from_json) {
            let key = (entry.decision.clone(), entry.reason.clone(), entry.what.clone());
            self.entries.insert(key, entry);
        }
    }

    /// The entries that pass or do not, the newest first.
    pub(super) fn newest(&self, allowed: bool) -> Vec<&FlowEntry> {
        let mut selected: Vec<_> =
            self.entries.values().filter(|entry| entry.is_allowed() == allowed).collect();
        selected.sort_by(|one, other| {
            other.last_seen.cmp(&one.last_seen).then_with(|| one.what.cmp(&other.what))
        });
        selected
    }

    /// How often each rule decided, those that decided most first. Without a rule, the reason.
    pub(super) fn rule_hits(&self) -> Vec<(String, u64)> {
        let mut hits = BTreeMap::<String, u64>::new();
        for entry in self.entries.values() {
            let rule = entry.rule.clone().unwrap_or_else(|| entry.reason.clone());
            *hits.entry(rule).or_default() += entry.count;
        }
        let mut hits: Vec<_> = hits.into_iter().collect();
        hits.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        hits
    }
}
