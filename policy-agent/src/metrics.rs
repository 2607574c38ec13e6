//! Metrics for Prometheus. Kernel counters are read on each scrape.

mod exposition;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::Result;
use policy_common::{
    ABI_VERSION, counters::ReasonCounters, endpoint::MAX_SANDBOXES, reason::Reason,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::exposition::ExpositionFormat;

use crate::{
    agent::{Agent, Sandbox, total_counters},
    build_info::{COMMIT, VERSION},
    events::EventBuffer,
    gateway,
    logging::LogSink,
    policy::SandboxId,
    proxy::ProxyMetrics,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PacketLabels {
    sandbox: String,
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    sandbox: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SandboxLabel {
    sandbox: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProxyConnectionLabels {
    sandbox: String,
    protocol: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProxyRequestLabels {
    sandbox: String,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    commit: &'static str,
    abi: u32,
}

/// Whether a sandbox uses something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    state: &'static str,
}

/// The metric families with a sandbox label.
#[derive(Default)]
struct SandboxFamilies {
    packets: Family<PacketLabels, Counter>,
    bytes: Family<PacketLabels, Counter>,
    denials: Family<DenialLabels, Counter>,
    would_deny: Family<DenialLabels, Counter>,
    observed: Family<SandboxLabel, Gauge>,
    proxy_connections: Family<ProxyConnectionLabels, Counter>,
    proxy_requests: Family<ProxyRequestLabels, Counter>,
}

/// Renders the metrics. Keeps state from one scrape to the next.
#[derive(Debug)]
pub struct MetricsExporter {
    log: LogSink,
    losses: Mutex<EventLosses>,
    /// Allows one scrape at a time: concurrent ones would keep the kernel and the blocking threads
    /// busy.
    render_permits: Arc<Semaphore>,
    last_reload: Mutex<LastReload>,
}

/// The last reload of the configuration. The start counts as one.
#[derive(Debug)]
struct LastReload {
    successful: bool,
    /// When the configuration in force was loaded.
    loaded_at: SystemTime,
}

/// Events lost in the kernel. A slot's own count restarts when the slot is reused; this one does
/// not.
#[derive(Debug, Default)]
struct EventLosses {
    total: u64,
    by_sandbox: HashMap<SandboxId, u64>,
}

impl MetricsExporter {
    /// Creates an exporter without state from earlier scrapes.
    #[must_use]
    pub fn new(log: LogSink) -> Self {
        Self {
            log,
            losses: Mutex::default(),
            render_permits: Arc::new(Semaphore::new(1)),
            last_reload: Mutex::new(LastReload { successful: true, loaded_at: SystemTime::now() }),
        }
    }

    /// Records a reload of the configuration.
    pub fn record_reload(&self, successful: bool) {
        let mut last = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner);
        last.successful = successful;
        if successful {
            last.loaded_at = SystemTime::now();
        }
    }

    /// Waits until no other scrape is running.
    pub async fn acquire_render_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.render_permits).acquire_owned().await.ok() // the semaphore is never closed
    }

    /// Renders all metrics in OpenMetrics format. Blocks.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub fn render(
        &self,
        agent: &Agent,
        event_buffer: &EventBuffer,
        proxy: &ProxyMetrics,
        gateway: &gateway::GatewayMetrics,
    ) -> Result<String> {
        let sandboxes = agent.registry().all();
        let mut registry = Registry::default();
        let families = SandboxFamilies::default();
        for sandbox in &sandboxes {
            families.add_sandbox(sandbox, &total_counters(sandbox, &**agent.dataplane())?);
        }
        families.register(&mut registry);
        let help = "Connections that sandboxes have through the egress proxy";
        registry.register(
            "policy_proxy_active_connections",
            help,
            proxy.active_connections.clone(),
        );
        let help = "Time until the egress proxy had looked a name up and was connected to its server, \
                    or failed to be";
        registry.register("policy_proxy_connect_seconds", help, proxy.dials.clone());
        let help = "Requests to public URLs, by the status of their answer";
        registry.register("policy_gateway_requests", help, gateway.requests.clone());
        let help = "Requests to public URLs of existing sandboxes, by the class of their status";
        registry.register(
            "policy_gateway_sandbox_requests",
            help,
            gateway.by_sandbox.collect(&sandboxes),
        );
        let help = "TLS handshakes with clients of public URLs that failed";
        registry.register(
            "policy_gateway_failed_handshakes",
            help,
            gateway.failed_handshakes.clone(),
        );
        let lost_events = self.total_lost_events(&sandboxes, agent)? + event_buffer.lost();
        self.register_agent_metrics(agent, sandboxes.len(), lost_events, &mut registry)?;
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Registers the metrics about the agent itself.
    fn register_agent_metrics(
        &self,
        agent: &Agent,
        sandboxes: usize,
        lost_events: u64,
        registry: &mut Registry,
    ) -> Result<()> {
        let build_info = Family::<BuildLabels, Gauge>::default();
        let labels = BuildLabels { version: VERSION, commit: COMMIT, abi: ABI_VERSION };
        build_info.get_or_create(&labels).set(1);
        registry.register(
            "policy_build_info",
            "Always 1; its labels say which agent runs",
            build_info,
        );
        registry.register("policy_sandboxes", "Sandboxes", gauge_with_value(sandboxes)?);
        register_capacity(agent, registry)?;
        self.register_reload(registry)?;
        let help = "Time until a change was enforced";
        registry.register("policy_apply_seconds", help, agent.timings().histogram().clone());
        registry.register(
            "policy_events_lost",
            "Events that were dropped",
            counter_with_value(lost_events),
        );
        let help = "Lines of the log that were dropped, since stderr was not read in time";
        registry.register("policy_log_lines_dropped", help, counter_with_value(self.log.dropped()));
        Ok(())
    }

    fn register_reload(&self, registry: &mut Registry) -> Result<()> {
        let (successful, loaded_at) = {
            let last = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner);
            (last.successful, last.loaded_at.duration_since(SystemTime::UNIX_EPOCH)?)
        };
        registry.register(
            "policy_config_last_reload_successful",
            "1 if the last reload of the configuration succeeded, and 0 if it did not",
            gauge_with_value(u64::from(successful))?,
        );
        registry.register(
            "policy_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded",
            gauge_with_value(loaded_at.as_secs())?,
        );
        Ok(())
    }

    fn total_lost_events(&self, sandboxes: &[Arc<Sandbox>], agent: &Agent) -> Result<u64> {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_sandbox = HashMap::with_capacity(sandboxes.len());
        for sandbox in sandboxes {
            let limits = agent.dataplane().rate_limits(sandbox.slot)?;
            let current = limits.events_lost + limits.events_suppressed;
            let previous = losses.by_sandbox.get(sandbox.id()).copied().unwrap_or(0);
            losses.total += current.checked_sub(previous).unwrap_or(current);
            by_sandbox.insert(sandbox.id().clone(), current);
        }
        losses.by_sandbox = by_sandbox;
        Ok(losses.total)
    }
}

impl SandboxFamilies {
    fn add_sandbox(&self, sandbox: &Sandbox, totals: &ReasonCounters) {
        let id = || sandbox.id().to_string();
        for &reason in Reason::ALL {
            let refused = sandbox.lifetime.proxy_counters().refusals(reason);
            let counter = totals.by_reason.get(reason as usize).copied().unwrap_or_default();
            if counter.packets > 0 {
                let verdict = if reason.passes() { "allowed" } else { "denied" };
                let labels = PacketLabels { sandbox: id(), verdict, reason: reason.label() };
                self.packets.get_or_create(&labels).inc_by(counter.packets);
                self.bytes.get_or_create(&labels).inc_by(counter.bytes);
            }
            if !reason.passes() && counter.packets + refused > 0 {
                let labels = DenialLabels { sandbox: id(), reason: reason.label() };
                self.denials.get_or_create(&labels).inc_by(counter.packets + refused);
            }
        }
        self.add_observation(sandbox, totals);
        for (protocol, decision, count) in sandbox.lifetime.proxy_counters().connection_counts() {
            let labels = ProxyConnectionLabels { sandbox: id(), protocol, decision };
            self.proxy_connections.get_or_create(&labels).inc_by(count);
        }
        for (decision, count) in sandbox.lifetime.proxy_counters().request_counts() {
            let labels = ProxyRequestLabels { sandbox: id(), decision };
            self.proxy_requests.get_or_create(&labels).inc_by(count);
        }
    }

    /// Adds what passed because the sandbox is observed, by the reason that would deny it.
    fn add_observation(&self, sandbox: &Sandbox, totals: &ReasonCounters) {
        let id = || sandbox.id().to_string();
        if sandbox.active_policy.policy.is_observed() {
            self.observed.get_or_create(&SandboxLabel { sandbox: id() }).set(1);
        }
        let counters = sandbox.lifetime.proxy_counters();
        for &reason in Reason::ALL {
            let in_kernel = match reason {
                Reason::DenyOut => totals.by_reason[Reason::WouldDeny as usize].packets,
                _ => 0,
            };
            let count = in_kernel + counters.would_deny(reason);
            if count > 0 {
                let labels = DenialLabels { sandbox: id(), reason: reason.label() };
                self.would_deny.get_or_create(&labels).inc_by(count);
            }
        }
    }

    fn register(self, registry: &mut Registry) {
        registry.register("policy_packets", "Packets, by verdict and reason", self.packets);
        registry.register("policy_bytes", "Bytes, Ethernet headers included", self.bytes);
        let help = "Packets that the kernel denied, and connections and requests that the egress \
                    proxy refused, by reason";
        registry.register("policy_denials", help, self.denials);
        let help = "Packets, connections and requests that passed because their sandbox is observed, \
                    by the reason that would deny them";
        registry.register("policy_would_deny", help, self.would_deny);
        let help = "1 for each sandbox that is observed: its policy is not enforced";
        registry.register("policy_sandbox_observed", help, self.observed);
        let help = "Connections that the egress proxy decided about";
        registry.register("policy_proxy_connections", help, self.proxy_connections);
        let help = "Requests to names with network.rules that the egress proxy decided about";
        registry.register("policy_proxy_requests", help, self.proxy_requests);
    }
}

/// Registers how many sandboxes there can be, and how many interfaces are free.
fn register_capacity(agent: &Agent, registry: &mut Registry) -> Result<()> {
    let (used, free) = agent.pool_usage();
    // Slot 0 is no slot, and idle interfaces share one.
    let slots = MAX_SANDBOXES - 1 - u32::from(used + free > 0);
    registry.register(
        "policy_sandboxes_max",
        "Sandboxes that there can be",
        gauge_with_value(slots)?,
    );
    let interfaces = Family::<UseLabels, Gauge>::default();
    for (state, count) in [("used", used), ("free", free)] {
        interfaces.get_or_create(&UseLabels { state }).set(i64::try_from(count)?);
    }
    let help = "Interfaces of [[interfaces]], by whether a sandbox has them";
    registry.register("policy_pool_interfaces", help, interfaces);
    Ok(())
}

fn gauge_with_value<E>(value: impl TryInto<i64, Error = E>) -> Result<Gauge>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let gauge = Gauge::default();
    gauge.set(value.try_into()?);
    Ok(gauge)
}

fn counter_with_value(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}
