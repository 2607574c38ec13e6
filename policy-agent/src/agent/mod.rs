//! The agent: keeps the state that the kernel enforces equal to the requested state.
//!
//! The [`Reconciler`] makes changes one at a time and outside of the async threads, since the
//! kernel makes it wait. Readers use the [`SandboxRegistry`], which never makes them wait for a
//! change.

mod attachments;
mod command;
mod current_platform_policy;
mod dataplane_control;
mod endpoint_validator;
mod error;
mod expiry;
mod floor_cache;
mod handle;
mod interface_pool;
mod interface_state;
mod link_backlog;
mod link_events;
mod link_messages;
mod orphaned_pins;
mod pooled_interface;
mod proxy_control;
mod proxy_redirects;
mod queue;
mod reconciler;
mod sandbox;
mod timings;
mod watch;

#[cfg(test)]
mod tests;

pub(crate) use self::interface_state::probe_interface;
pub use self::{
    current_platform_policy::CurrentPlatformPolicy,
    dataplane_control::DataplaneControl,
    error::AgentError,
    handle::Agent,
    interface_state::InterfaceState,
    pooled_interface::PooledInterface,
    proxy_control::ProxyControl,
    reconciler::{ApplyResults, Reconciler, create::CreateRequest, single_result},
    sandbox::{
        EnforcementStatus, Sandbox,
        active_policy::{ActivePolicy, PlatformPolicy},
        attribution::EventAttribution,
        endpoint_addresses_for, interface_for,
        lease::SandboxMetadata,
        lifetime::SandboxLifetime,
        proxy_counters::{ConnectionProtocol, SandboxProxyCounters},
        registry::SandboxRegistry,
        report::{SandboxReport, TrafficCount, total_counters},
        store::SandboxStore,
        traffic::SandboxTraffic,
    },
    timings::ApplyTimings,
};
