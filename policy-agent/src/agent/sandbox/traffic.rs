//! The traffic of a sandbox: what views of many sandboxes show. Unlike its report, it has a bounded
//! size: it leaves out the configuration, whose lists may be long.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    EnforcementStatus, Sandbox,
    report::{TrafficCount, TrafficSums},
};
use crate::{
    agent::{dataplane_control::DataplaneControl, proxy_control::ProxyControl},
    policy::{PolicyMode, SandboxId},
};

/// The counters of a sandbox, without its configuration.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxTraffic {
    /// Its ID.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    pub sandbox_id: SandboxId,
    /// The host-side interface.
    pub interface: String,
    /// Whether the policy is enforced.
    #[schema(value_type = String)]
    pub status: EnforcementStatus,
    /// Whether the policy is enforced, or only observed. Absent: it is enforced.
    #[serde(skip_serializing_if = "PolicyMode::is_enforce")]
    pub mode: PolicyMode,
    /// When an observation ends, RFC 3339. Absent: when the operator ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub observe_until: Option<Timestamp>,
    /// As in the report of the sandbox.
    pub passed: TrafficCount,
    /// As in the report of the sandbox.
    pub denied: TrafficCount,
    /// As in the report of the sandbox.
    pub would_deny: TrafficCount,
    /// Current connections of the sandbox through the egress proxy.
    pub proxied_connections: usize,
}

impl SandboxTraffic {
    /// Reads the counters of a sandbox.
    ///
    /// # Errors
    /// The kernel cannot be queried.
    pub(crate) fn collect(
        sandbox: &Sandbox,
        dataplane: &dyn DataplaneControl,
        proxy: &dyn ProxyControl,
    ) -> anyhow::Result<Self> {
        let TrafficSums { passed, denied, would_deny } = TrafficSums::collect(sandbox, dataplane)?;
        Ok(Self {
            sandbox_id: sandbox.id().clone(),
            interface: sandbox.base_spec.interface.clone(),
            status: sandbox.reported_status(),
            mode: sandbox.base_spec.mode,
            observe_until: sandbox.base_spec.observe_until,
            passed,
            denied,
            would_deny,
            proxied_connections: proxy.active_connections(sandbox.slot),
        })
    }
}
