//! The agent's interface to the egress proxy. Unit tests replace the proxy with a fake.

use std::sync::Arc;

use super::sandbox::{active_policy::ActivePolicy, proxy_counters::SandboxProxyCounters};
use crate::{
    dataplane::{RedirectListeners, Slot},
    policy::SandboxId,
};

/// Controls the egress proxy. No method waits for a connection.
pub trait ProxyControl: Send + Sync {
    /// Serves the listeners of a slot that has none yet. The connections of the sandbox arrive
    /// there, are decided on by this policy and are counted in these counters.
    ///
    /// # Errors
    /// The listeners cannot be served.
    fn open_listeners(
        &self,
        slot: Slot,
        sandbox: &SandboxId,
        proxy_counters: &Arc<SandboxProxyCounters>,
        active_policy: &Arc<ActivePolicy>,
        listeners: RedirectListeners,
    ) -> anyhow::Result<()>;

    /// Returns whether the slot has listeners.
    fn has_listeners(&self, slot: Slot) -> bool;

    /// Replaces the policy of a slot. Connections that it does not allow are closed when this
    /// returns. Does nothing without listeners.
    fn update_policy(&self, slot: Slot, active_policy: &Arc<ActivePolicy>);

    /// Closes the listeners of a slot and its connections. Does nothing without listeners.
    fn close_listeners(&self, slot: Slot);

    /// Returns how many connections the slot's sandbox has through the proxy.
    fn active_connections(&self, slot: Slot) -> usize;
}
