//! Metrics in Prometheus' text format. What the kernel counts is read when somebody asks.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use policy_common::reason::Reason;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{
    agent::{Agent, Sandbox, totals},
    events::Hub,
    gateway,
    policy::SandboxId,
    proxy::Counts,
};

/// How long it took until changes were enforced.
#[derive(Clone, Debug)]
pub struct Timings(Histogram);

impl Default for Timings {
    fn default() -> Self {
        // From 1 ms, less than a grace period of the kernel, to 8 s.
        Self(Histogram::new(exponential_buckets(0.001, 2.0, 14)))
    }
}

impl Timings {
    /// A change took so long.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    sandbox: String,
    verdict: &'static str,
    reason: &'static str,
}

/// What has to be remembered from one reading to the next.
#[derive(Debug, Default)]
pub struct Metrics {
    losses: Mutex<Losses>,
}

/// Events lost in the kernel. A slot's count starts again when the slot does; this one does not.
#[derive(Debug, Default)]
struct Losses {
    total: u64,
    by_sandbox: HashMap<SandboxId, u64>,
}

impl Metrics {
    /// All metrics, as text. Blocks.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn render(
        &self,
        agent: &Agent,
        hub: &Hub,
        proxy: &Counts,
        gateway: &gateway::Counts,
    ) -> Result<String> {
        let sandboxes = agent.table().all();
        let (packets, bytes) = (Family::<Labels, Counter>::default(), Family::default());
        for sandbox in &sandboxes {
            count(sandbox, agent, &packets, &bytes)?;
        }
        let (lost, number) = (Counter::<u64>::default(), Gauge::<i64>::default());
        lost.inc_by(self.lost(&sandboxes, agent)? + hub.lost());
        number.set(i64::try_from(sandboxes.len())?);
        let mut registry = Registry::default();
        registry.register("policy_packets", "Packets, by verdict and reason", packets);
        registry.register("policy_bytes", "Bytes, Ethernet headers included", bytes);
        registry.register("policy_events_lost", "Events that nobody got to see", lost);
        let help = "Time until a change was enforced";
        registry.register("policy_apply_seconds", help, agent.timings().0.clone());
        registry.register("policy_sandboxes", "Sandboxes", number);
        let help = "Connections that the egress proxy decided about";
        registry.register("policy_proxy_connections", help, proxy.connections.clone());
        let help = "Connections that sandboxes have through the egress proxy";
        registry.register("policy_proxy_active_connections", help, proxy.active.clone());
        let help = "Requests to public URLs, by the status of their answer";
        registry.register("policy_gateway_requests", help, gateway.requests.clone());
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn lost(&self, sandboxes: &[std::sync::Arc<Sandbox>], agent: &Agent) -> Result<u64> {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_sandbox = HashMap::with_capacity(sandboxes.len());
        for sandbox in sandboxes {
            let limits = agent.kernel().limits(sandbox.slot)?;
            let now = limits.events_lost + limits.events_suppressed;
            let before = losses.by_sandbox.get(sandbox.id()).copied().unwrap_or(0);
            losses.total += now.checked_sub(before).unwrap_or(now);
            by_sandbox.insert(sandbox.id().clone(), now);
        }
        losses.by_sandbox = by_sandbox;
        Ok(losses.total)
    }
}

fn count(
    sandbox: &Sandbox,
    agent: &Agent,
    packets: &Family<Labels, Counter>,
    bytes: &Family<Labels, Counter>,
) -> Result<()> {
    let totals = totals(sandbox, &**agent.kernel())?;
    for reason in Reason::counted() {
        let counter = totals.by_reason[reason as usize];
        if counter.packets > 0 {
            let verdict = if reason.passes() { "allowed" } else { "denied" };
            let sandbox = sandbox.id().to_string();
            let labels = Labels { sandbox, verdict, reason: reason.label() };
            packets.get_or_create(&labels).inc_by(counter.packets);
            bytes.get_or_create(&labels).inc_by(counter.bytes);
        }
    }
    Ok(())
}
