//! Metrics for Prometheus. What the kernel counts is read when somebody asks.

mod format;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use policy_common::{counter::Counters, reason::Reason};
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::format::Format;

use crate::{
    agent::{Agent, Sandbox, totals},
    events::Hub,
    gateway,
    logging::Log,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denied {
    sandbox: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Proxied {
    sandbox: String,
    protocol: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// What is counted by sandbox.
#[derive(Default)]
struct BySandbox {
    packets: Family<Labels, Counter>,
    bytes: Family<Labels, Counter>,
    denials: Family<Denied, Counter>,
    proxied: Family<Proxied, Counter>,
}

/// What has to be remembered from one reading to the next.
#[derive(Debug)]
pub struct Metrics {
    log: Log,
    losses: Mutex<Losses>,
    /// One reading at a time: many would keep the kernel and the blocking threads busy.
    turns: Arc<Semaphore>,
}

/// Events lost in the kernel. A slot's count starts again when the slot does; this one does not.
#[derive(Debug, Default)]
struct Losses {
    total: u64,
    by_sandbox: HashMap<SandboxId, u64>,
}

impl Metrics {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { log, losses: Mutex::default(), turns: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until nobody else reads.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok() // it is never closed
    }

    /// All metrics, in OpenMetrics. Blocks.
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
        let mut registry = Registry::default();
        let counted = BySandbox::default();
        for sandbox in &sandboxes {
            counted.add(sandbox, &totals(sandbox, &**agent.kernel())?);
        }
        counted.register(&mut registry);
        let help = "Connections that sandboxes have through the egress proxy";
        registry.register("policy_proxy_active_connections", help, proxy.active.clone());
        let help = "Requests to public URLs, by the status of their answer";
        registry.register("policy_gateway_requests", help, gateway.requests.clone());
        let help = "TLS handshakes with clients of public URLs that failed";
        registry.register("policy_gateway_failed_handshakes", help, gateway.handshakes.clone());
        let lost = self.lost(&sandboxes, agent)? + hub.lost();
        self.register(agent, sandboxes.len(), lost, &mut registry)?;
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// What is about the agent itself.
    fn register(
        &self,
        agent: &Agent,
        sandboxes: usize,
        lost: u64,
        registry: &mut Registry,
    ) -> Result<()> {
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("policy_build_info", "Always 1; its label says which agent runs", build);
        let number = Gauge::<i64>::default();
        number.set(i64::try_from(sandboxes)?);
        registry.register("policy_sandboxes", "Sandboxes", number);
        let help = "Time until a change was enforced";
        registry.register("policy_apply_seconds", help, agent.timings().0.clone());
        registry.register("policy_events_lost", "Events that nobody got to see", counter(lost));
        let help = "Lines of the log that were dropped, since stderr was not read in time";
        registry.register("policy_log_lines_dropped", help, counter(self.log.dropped()));
        Ok(())
    }

    fn lost(&self, sandboxes: &[Arc<Sandbox>], agent: &Agent) -> Result<u64> {
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

impl BySandbox {
    fn add(&self, sandbox: &Sandbox, totals: &Counters) {
        let id = || sandbox.id().to_string();
        for &reason in Reason::ALL {
            let refused = sandbox.life.tally().refused(reason);
            let counter = totals.by_reason.get(reason as usize).copied().unwrap_or_default();
            if counter.packets > 0 {
                let verdict = if reason.passes() { "allowed" } else { "denied" };
                let labels = Labels { sandbox: id(), verdict, reason: reason.label() };
                self.packets.get_or_create(&labels).inc_by(counter.packets);
                self.bytes.get_or_create(&labels).inc_by(counter.bytes);
            }
            if !reason.passes() && counter.packets + refused > 0 {
                let labels = Denied { sandbox: id(), reason: reason.label() };
                self.denials.get_or_create(&labels).inc_by(counter.packets + refused);
            }
        }
        for (protocol, decision, count) in sandbox.life.tally().connections() {
            let labels = Proxied { sandbox: id(), protocol, decision };
            self.proxied.get_or_create(&labels).inc_by(count);
        }
    }

    fn register(self, registry: &mut Registry) {
        registry.register("policy_packets", "Packets, by verdict and reason", self.packets);
        registry.register("policy_bytes", "Bytes, Ethernet headers included", self.bytes);
        let help = "Packets that the kernel denied, and connections and requests that the egress \
                    proxy refused, by reason";
        registry.register("policy_denials", help, self.denials);
        let help = "Connections that the egress proxy decided about";
        registry.register("policy_proxy_connections", help, self.proxied);
    }
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}
