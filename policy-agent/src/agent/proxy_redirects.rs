//! Proxy listeners of sandboxes, to which the kernel redirects connections for the egress proxy.
//! They are opened before the kernel redirects to them, and closed after it has stopped.
//!
//! The listeners are sockets in the network namespace of the sandbox's interface, which they would
//! keep alive. They are therefore closed when the interface disappears.

use std::sync::Arc;

use anyhow::Result;

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

/// The validation error for a policy that needs the egress proxy on a bridge port.
const BRIDGE_PORT_PROBLEM: &str = "is a port of a bridge (or bond), which takes the sandbox's frames before domain \
                    rules and egressProxy can be applied to them; take it off the bridge and route \
                    to it, or write rules for addresses only";

/// Opens and closes the proxy listeners of sandboxes.
pub(crate) struct ProxyRedirects {
    dataplane: Arc<dyn DataplaneControl>,
    proxy: Arc<dyn ProxyControl>,
}

impl ProxyRedirects {
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>, proxy: Arc<dyn ProxyControl>) -> Self {
        Self { dataplane, proxy }
    }

    /// Rejects a policy that needs the proxy on an interface whose connections cannot be
    /// redirected.
    pub(crate) fn validate(
        &self,
        spec: &SandboxSpec,
        policy: &Policy,
    ) -> Result<(), ValidationError> {
        let needs_redirect = policy.needs_proxy();
        if needs_redirect && spec.is_stopped_container() {
            let problem = "does not run; start it first: domain rules and egressProxy depend on its interface";
            return Err(ValidationError::about_field("container", problem));
        }
        // An interface that cannot be queried cannot be attached either.
        if needs_redirect && self.dataplane.is_bridge_port(&interface_for(spec)).unwrap_or(false) {
            return Err(ValidationError::about_entry(
                "interface",
                &spec.interface,
                BRIDGE_PORT_PROBLEM,
            ));
        }
        Ok(())
    }

    /// Returns whether a sandbox needs listeners and has none.
    fn lacks_listeners(&self, sandbox: &Sandbox) -> bool {
        sandbox.active_policy.needs_proxy() && !self.proxy.has_listeners(sandbox.slot)
    }

    /// Opens the listeners of a sandbox that lacks them.
    fn open(&self, sandbox: &Sandbox) -> Result<()> {
        if !self.lacks_listeners(sandbox) {
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
            // Only the first error is reported.
            let _ = self.dataplane.close_listeners(sandbox.slot);
        })
    }

    /// Opens the listeners if the interface exists. Otherwise they are opened when it appears.
    pub(crate) fn open_if_present(&self, sandbox: &Sandbox) -> Result<()> {
        // Most sandboxes need none, and the interface need not be looked for.
        if !self.lacks_listeners(sandbox) {
            return Ok(());
        }
        match self.dataplane.interface_state(&interface_for(&sandbox.base_spec)) {
            InterfaceState::Present(_) => self.open(sandbox),
            _ => Ok(()),
        }
    }

    /// Passes the policy in force to the proxy, which closes connections that it does not allow.
    /// Opens or closes the listeners as needed.
    pub(crate) fn sync(&self, sandbox: &Sandbox) -> Result<()> {
        if sandbox.status == EnforcementStatus::InterfaceMissing
            || !sandbox.active_policy.needs_proxy()
        {
            self.close(sandbox.slot);
            return Ok(());
        }
        if sandbox.status == EnforcementStatus::Enforcing {
            // The interface may have become a bridge port.
            if self.dataplane.is_bridge_port(&interface_for(&sandbox.base_spec)).unwrap_or(false) {
                let name = &sandbox.base_spec.interface;
                let problem = ValidationError::about_entry("interface", name, BRIDGE_PORT_PROBLEM);
                return Err(problem.into());
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
            // The kernel redirects nothing without a listener.
            tracing::warn!(slot = slot.get(), "cannot remove proxy listeners: {error:#}");
        }
        self.proxy.close_listeners(slot);
    }
}
