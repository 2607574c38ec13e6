//! The report of a sandbox for users: its specification, whether it is enforced, and its counters.
//! It contains no secrets, which a specification omits when it is serialised.

use std::collections::BTreeMap;

use policy_common::{counters::ReasonCounters, reason::Reason};
use serde::Serialize;
use utoipa::ToSchema;

use super::{EnforcementStatus, Sandbox, proxy_counters::SandboxProxyCounters};
use crate::{
    agent::{dataplane_control::DataplaneControl, proxy_control::ProxyControl},
    dataplane::PolicyId,
    policy::SandboxSpec,
};

/// A sandbox as `get` and `GET /agent/v1/sandboxes` show it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxReport {
    /// The requested specification.
    #[serde(flatten)]
    pub spec: SandboxSpec,
    /// Whether the policy is enforced.
    #[schema(value_type = String)]
    pub status: EnforcementStatus,
    /// The ID of the compiled policy in force, as in events. Equal policies have the same ID.
    #[schema(value_type = Option<u16>)]
    pub policy_id: Option<PolicyId>,
    /// Traffic from and to the sandbox that passed.
    pub passed: TrafficCount,
    /// Denied traffic. Each connection or request that the egress proxy refused counts as one
    /// packet without bytes.
    pub denied: TrafficCount,
    /// What passed because the sandbox is observed, counted as in `denied`.
    #[serde(skip_serializing_if = "TrafficCount::is_zero")]
    pub would_deny: TrafficCount,
    /// Traffic by reason, without reasons that never occurred.
    pub counters: BTreeMap<&'static str, TrafficCount>,
    /// Current connections of the sandbox through the egress proxy.
    pub proxied_connections: usize,
    /// Events that were not written because of the limit of events per second and sandbox.
    pub events_suppressed: u64,
    /// Events that were not written because earlier events were not read in time.
    pub events_lost: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct TrafficCount {
    /// Packets. A super-packet counts as the packets that it stands for.
    pub packets: u64,
    /// Bytes, including Ethernet headers.
    pub bytes: u64,
}

impl SandboxReport {
    /// Reads the counters of a sandbox.
    ///
    /// # Errors
    /// The kernel cannot be queried.
    pub fn collect(
        sandbox: &Sandbox,
        dataplane: &dyn DataplaneControl,
        proxy: &dyn ProxyControl,
    ) -> anyhow::Result<Self> {
        let totals = total_counters(sandbox, dataplane)?;
        let limits = dataplane.rate_limits(sandbox.slot)?;
        let counts = counts_by_reason(&totals, sandbox.lifetime.proxy_counters());
        let TrafficSums { passed, denied, would_deny } = TrafficSums::new(sandbox, &totals);
        Ok(Self {
            spec: sandbox.spec(),
            status: sandbox.reported_status(),
            policy_id: sandbox.policy_id,
            passed,
            denied,
            would_deny,
            counters: counts
                .filter(|(_, count)| *count != TrafficCount::default())
                .map(|(reason, count)| (reason.label(), count))
                .collect(),
            proxied_connections: proxy.active_connections(sandbox.slot),
            events_suppressed: limits.events_suppressed,
            events_lost: limits.events_lost,
        })
    }
}

/// All traffic of a sandbox.
pub(super) struct TrafficSums {
    pub(super) passed: TrafficCount,
    pub(super) denied: TrafficCount,
    pub(super) would_deny: TrafficCount,
}

impl TrafficSums {
    /// Reads the counters of a sandbox.
    pub(super) fn collect(
        sandbox: &Sandbox,
        dataplane: &dyn DataplaneControl,
    ) -> anyhow::Result<Self> {
        Ok(Self::new(sandbox, &total_counters(sandbox, dataplane)?))
    }

    fn new(sandbox: &Sandbox, totals: &ReasonCounters) -> Self {
        let proxy = sandbox.lifetime.proxy_counters();
        let counts = || counts_by_reason(totals, proxy);
        Self {
            passed: sum_counts(counts().filter(|(reason, _)| reason.passes())),
            denied: sum_counts(counts().filter(|(reason, _)| !reason.passes())),
            would_deny: observed_traffic(totals, proxy),
        }
    }
}

/// What the kernel and the egress proxy have counted for each reason.
fn counts_by_reason(
    totals: &ReasonCounters,
    proxy: &SandboxProxyCounters,
) -> impl Iterator<Item = (Reason, TrafficCount)> {
    Reason::ALL.iter().map(|&reason| {
        let counter = totals.by_reason.get(reason as usize).copied().unwrap_or_default();
        let packets = counter.packets + proxy.refusals(reason);
        (reason, TrafficCount { packets, bytes: counter.bytes })
    })
}

impl TrafficCount {
    const fn is_zero(&self) -> bool {
        self.packets == 0 && self.bytes == 0
    }
}

/// What the kernel and the egress proxy let pass because the sandbox is observed.
fn observed_traffic(totals: &ReasonCounters, proxy: &SandboxProxyCounters) -> TrafficCount {
    let kernel = totals.by_reason[Reason::WouldDeny as usize];
    let proxied: u64 = Reason::ALL.iter().map(|reason| proxy.would_deny(*reason)).sum();
    TrafficCount { packets: kernel.packets + proxied, bytes: kernel.bytes }
}

/// Returns all counters of a sandbox, including those of its previous slots.
///
/// # Errors
/// The kernel cannot be queried.
pub fn total_counters(
    sandbox: &Sandbox,
    dataplane: &dyn DataplaneControl,
) -> anyhow::Result<ReasonCounters> {
    let mut totals = *sandbox.previous_counters;
    add_counters(&mut totals, &dataplane.counters(sandbox.slot)?);
    Ok(totals)
}

fn add_counters(sum: &mut ReasonCounters, counters: &ReasonCounters) {
    for (total, counter) in sum.by_reason.iter_mut().zip(&counters.by_reason) {
        total.packets += counter.packets;
        total.bytes += counter.bytes;
    }
}

fn sum_counts(counts: impl Iterator<Item = (Reason, TrafficCount)>) -> TrafficCount {
    counts.fold(TrafficCount::default(), |sum, (_, count)| TrafficCount {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}
