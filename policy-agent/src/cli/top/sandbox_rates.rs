//! The rates of a sandbox, from two looks at its counters.

use std::{collections::VecDeque, time::Duration};

use serde::Deserialize;

use crate::policy::PolicyMode;

/// Looks that a sparkline shows at most.
const HISTORY: usize = 60;

/// The traffic of a sandbox, as the agent tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TrafficSample {
    #[serde(rename = "sandboxID")]
    pub(super) id: String,
    pub(super) interface: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) mode: PolicyMode,
    pub(super) observe_until: Option<String>,
    pub(super) passed: CountSample,
    pub(super) denied: CountSample,
    pub(super) would_deny: CountSample,
    pub(super) proxied_connections: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct CountSample {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// A sandbox and what it did between the last two looks, per second.
#[derive(Debug)]
pub(super) struct SandboxRates {
    pub(super) sample: TrafficSample,
    pub(super) bytes: f64,
    pub(super) packets: f64,
    pub(super) denied: f64,
    pub(super) would_deny: f64,
    /// The bytes of each look, from the oldest.
    pub(super) history: VecDeque<f64>,
}

impl SandboxRates {
    /// A sandbox that was not seen before.
    pub(super) const fn first(sample: TrafficSample) -> Self {
        let history = VecDeque::new();
        Self { sample, bytes: 0.0, packets: 0.0, denied: 0.0, would_deny: 0.0, history }
    }

    /// Adds a look, so much later than the last one.
    pub(super) fn add(&mut self, sample: TrafficSample, elapsed: Duration) {
        let before = &self.sample;
        let rate = |new: u64, old: u64| per_second(new, old, elapsed);
        self.bytes = rate(sample.passed.bytes, before.passed.bytes);
        self.packets = rate(sample.passed.packets, before.passed.packets);
        self.denied = rate(sample.denied.packets, before.denied.packets);
        self.would_deny = rate(sample.would_deny.packets, before.would_deny.packets);
        self.sample = sample;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(self.bytes);
    }

    pub(super) fn is_observed(&self) -> bool {
        self.sample.mode == PolicyMode::Observe
    }
}

/// The growth of a counter, which starts again at 0 with another agent or sandbox.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn per_second(new: u64, old: u64, elapsed: Duration) -> f64 {
    let grown = new.checked_sub(old).unwrap_or(new);
    grown as f64 / elapsed.as_secs_f64().max(0.001)
}
