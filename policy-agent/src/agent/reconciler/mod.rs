//! The reconciler: makes all changes of sandboxes, one at a time, so that the actual state becomes
//! the desired one.

mod adopt;
mod commit;
pub(crate) mod create;
mod delete;
mod edit;
mod execute;
mod lease;
mod publish;
mod reload;
mod rollback;
mod scan;
pub(crate) mod stage;
mod tokens;
pub(crate) mod validate;

use std::sync::Arc;

use self::publish::Publisher;
use super::{
    attachments::Attachments,
    current_platform_policy::CurrentPlatformPolicy,
    dataplane_control::DataplaneControl,
    endpoint_validator::EndpointValidator,
    error::AgentError,
    floor_cache::FloorCache,
    interface_pool::InterfacePool,
    pooled_interface::PooledInterface,
    proxy_control::ProxyControl,
    proxy_redirects::ProxyRedirects,
    sandbox::{
        active_policy::PolicyInterner, attribution::EventAttribution, registry::SandboxRegistry,
        slot_allocator::SlotAllocator, store::SandboxStore,
    },
};
use crate::policy::SandboxId;

/// The result of each sandbox of an `apply`.
pub type ApplyResults = Vec<(SandboxId, Result<(), AgentError>)>;

/// Validates, stages, publishes and commits changes, or rolls them back. Its methods block.
pub struct Reconciler {
    dataplane: Arc<dyn DataplaneControl>,
    platform_policy: CurrentPlatformPolicy,
    pub(crate) registry: Arc<SandboxRegistry>,
    store: SandboxStore,
    policy_interner: PolicyInterner,
    floors: FloorCache,
    endpoints: EndpointValidator,
    slots: SlotAllocator,
    publisher: Publisher,
    pub(crate) attachments: Attachments,
    redirects: ProxyRedirects,
    interface_pool: InterfacePool,
}

impl Reconciler {
    /// Creates a reconciler without sandboxes.
    #[must_use]
    pub(crate) fn new(
        dataplane: &Arc<dyn DataplaneControl>,
        proxy: Arc<dyn ProxyControl>,
        store: SandboxStore,
        platform_policy: CurrentPlatformPolicy,
        registry: Arc<SandboxRegistry>,
        attribution: Arc<EventAttribution>,
        pooled_interfaces: Arc<[PooledInterface]>,
    ) -> Self {
        let dataplane = || Arc::clone(dataplane);
        Self {
            floors: FloorCache::new(dataplane(), &platform_policy.get().floor),
            endpoints: EndpointValidator::new(dataplane(), Arc::clone(&registry)),
            slots: SlotAllocator::new(dataplane(), Arc::clone(&attribution)),
            publisher: Publisher::new(dataplane(), attribution),
            attachments: Attachments::new(dataplane()),
            redirects: ProxyRedirects::new(dataplane(), proxy),
            interface_pool: InterfacePool::new(dataplane(), pooled_interfaces),
            dataplane: dataplane(),
            policy_interner: PolicyInterner::default(),
            platform_policy,
            registry,
            store,
        }
    }
}

/// Returns the result of a change of one sandbox.
///
/// # Errors
/// That of the sandbox.
pub fn single_result(mut results: ApplyResults) -> Result<(), AgentError> {
    results.pop().map_or(Ok(()), |(_, result)| result)
}
