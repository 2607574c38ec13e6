//! How a sandbox's connections come to the egress proxy: listeners that the kernel redirects them to.
//! They are open before the kernel redirects anything, and closed when it redirects nothing any more.
//!
//! The listeners are sockets in the namespace of the sandbox's interface and would keep it alive, so
//! they are closed when the interface goes.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{
    dataplane_control::DataplaneControl,
    interface_state::InterfaceState,
    proxy_control::ProxyControl,
    sandbox::{EnforcementStatus, Sandbox, interface_for},
};
use crate::{
    dataplane::Slot,
    policy::{Policy, SandboxSpec, ValidationError},
};

/// What is wrong with a bridge between a sandbox and the egress proxy.
const BRIDGE_PORT_PROBLEM: &str = "is a port of a bridge (or bond), which takes the sandbox's frames before domain \
                    rules and egressProxy can be applied to them; take it off the bridge and route \
                    to it, or write rules for addresses only";

/// Opens the proxy listeners of sandboxes and closes them.
pub(crate) struct ProxyRedirects {
    dataplane: Arc<dyn DataplaneControl>,
    proxy: Arc<dyn ProxyControl>,
}

impl ProxyRedirects {
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>, proxy: Arc<dyn ProxyControl>) -> Self {
        Self { dataplane, proxy }
    }

    /// Refuses a policy that needs the proxy on an interface whose connections cannot be redirected.
    pub(crate) fn validate(
        &self,
        spec: &SandboxSpec,
        policy: &Policy,
    ) -> Result<(), ValidationError> {
        let needs_redirect = policy.has_domains() || policy.egress_proxy().is_some();
        // An interface that cannot be looked at is not attached either.
        if needs_redirect && self.dataplane.is_bridge_port(&interface_for(spec)).unwrap_or(false) {
            return Err(ValidationError::about_entry(
                "interface",
                &spec.interface,
                BRIDGE_PORT_PROBLEM,
            ));
        }
        Ok(())
    }

    /// Opens the listeners of a sandbox that needs them and has none.
    fn open(&self, sandbox: &Sandbox) -> Result<()> {
        if !sandbox.active_policy.needs_proxy() || self.proxy.has_listeners(sandbox.slot) {
            return Ok(());
        }
        let listeners =
            self.dataplane.open_listeners(sandbox.slot, &interface_for(&sandbox.base_spec))?;
        let (id, proxy_counters) = (sandbox.id(), sandbox.lifetime.proxy_counters());
        let opened = self.proxy.open_listeners(
            sandbox.slot,
            id,
            proxy_counters,
            &sandbox.active_policy,
            listeners,
        );
        opened.inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.dataplane.close_listeners(sandbox.slot);
        })
    }

    /// Opens them if its interface exists; otherwise they are opened when it appears.
    pub(crate) fn open_if_present(&self, sandbox: &Sandbox) -> Result<()> {
        match self.dataplane.interface_state(&interface_for(&sandbox.base_spec)) {
            InterfaceState::Present(_) => self.open(sandbox),
            _ => Ok(()),
        }
    }

    /// Gives the proxy the policy that is in force now. Connections that it does not allow are closed.
    pub(crate) fn sync(&self, sandbox: &Sandbox) -> Result<()> {
        if sandbox.status == EnforcementStatus::InterfaceMissing
            || !sandbox.active_policy.needs_proxy()
        {
            self.close(sandbox.slot);
            return Ok(());
        }
        if sandbox.status == EnforcementStatus::Enforcing {
            // It may have become a port of a bridge.
            if self.dataplane.is_bridge_port(&interface_for(&sandbox.base_spec)).unwrap_or(false) {
                bail!("interface: {:?} {BRIDGE_PORT_PROBLEM}", sandbox.base_spec.interface);
            }
            self.open(sandbox)?;
        }
        self.proxy.update_policy(sandbox.slot, &sandbox.active_policy);
        Ok(())
    }

    /// Closes the listeners of a slot, if it has any.
    pub(crate) fn close(&self, slot: Slot) {
        if !self.proxy.has_listeners(slot) {
            return;
        }
        if let Err(error) = self.dataplane.close_listeners(slot) {
            // Without a listener nothing is redirected either.
            tracing::warn!(slot = slot.get(), "cannot remove proxy listeners: {error:#}");
        }
        self.proxy.close_listeners(slot);
    }
}
