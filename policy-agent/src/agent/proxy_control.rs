//! What the agent tells the egress proxy, or a stand-in when the agent itself is tested.

use std::sync::Arc;

use super::sandbox::{active_policy::ActivePolicy, proxy_counters::SandboxProxyCounters};
use crate::{
    dataplane::{RedirectListeners, Slot},
    policy::SandboxId,
};

/// The egress proxy. Its methods do not wait for anybody's connection.
pub trait ProxyControl: Send + Sync {
    /// A sandbox's connections come out of this door from now on, these rules hold for them, and
    /// here they are counted. The slot has no door yet.
    ///
    /// # Errors
    /// The door's listeners cannot be served.
    fn open_listeners(
        &self,
        slot: Slot,
        sandbox: &SandboxId,
        proxy_counters: &Arc<SandboxProxyCounters>,
        active_policy: &Arc<ActivePolicy>,
        listeners: RedirectListeners,
    ) -> anyhow::Result<()>;

    /// Whether the slot has a door.
    fn has_listeners(&self, slot: Slot) -> bool;

    /// These rules hold from now on. Connections that they do not let out are closed when this
    /// returns. Without a door it does nothing.
    fn update_policy(&self, slot: Slot, active_policy: &Arc<ActivePolicy>);

    /// The slot has no door any more, and its connections are closed. Without a door it does nothing.
    fn close_listeners(&self, slot: Slot);

    /// Connections that a slot's sandbox has through the proxy.
    fn active_connections(&self, slot: Slot) -> usize;
}
