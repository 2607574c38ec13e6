//! The door of a sandbox: how its connections come to the egress proxy. It is open before the kernel
//! hands anything over, and shut when nothing is any more.
//!
//! A door's listeners stand in the namespace of the sandbox's interface and would keep it alive, so
//! the door of an interface that went is shut.

use anyhow::{Result, bail};

use super::{
    interface_state::InterfaceState,
    reconciler::Reconciler,
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

impl Reconciler {
    /// The sandbox's connections can come to the proxy, if they have to.
    pub(super) fn validate_redirect(
        &self,
        spec: &SandboxSpec,
        policy: &Policy,
    ) -> Result<(), ValidationError> {
        let needs_redirect = policy.has_domains() || policy.egress_proxy().is_some();
        // One that cannot be looked at is not attached either.
        if needs_redirect && self.dataplane.is_bridge_port(&interface_for(spec)).unwrap_or(false) {
            return Err(ValidationError::about_entry(
                "interface",
                &spec.interface,
                BRIDGE_PORT_PROBLEM,
            ));
        }
        Ok(())
    }

    /// Opens the door of a sandbox that needs one and has none.
    pub(super) fn open_proxy_listeners(&self, sandbox: &Sandbox) -> Result<()> {
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
            // What went wrong first is what to tell.
            let _ = self.dataplane.close_listeners(sandbox.slot);
        })
    }

    /// The same if its interface is there; else it is opened when that appears.
    pub(super) fn open_listeners_if_present(&self, sandbox: &Sandbox) -> Result<()> {
        match self.dataplane.interface_state(&interface_for(&sandbox.base_spec)) {
            InterfaceState::Present(_) => self.open_proxy_listeners(sandbox),
            _ => Ok(()),
        }
    }

    /// Has the proxy follow the rules that are in force now. Connections that they do not let out
    /// are closed.
    pub(super) fn sync_proxy_policy(&self, sandbox: &Sandbox) -> Result<()> {
        if sandbox.status == EnforcementStatus::InterfaceMissing
            || !sandbox.active_policy.needs_proxy()
        {
            self.close_proxy_listeners(sandbox.slot);
            return Ok(());
        }
        if sandbox.status == EnforcementStatus::Enforcing {
            // It may have become one by now.
            if self.dataplane.is_bridge_port(&interface_for(&sandbox.base_spec)).unwrap_or(false) {
                bail!("interface: {:?} {BRIDGE_PORT_PROBLEM}", sandbox.base_spec.interface);
            }
            self.open_proxy_listeners(sandbox)?;
        }
        self.proxy.update_policy(sandbox.slot, &sandbox.active_policy);
        Ok(())
    }

    /// Shuts a slot's door, if it has one.
    pub(super) fn close_proxy_listeners(&self, slot: Slot) {
        if !self.proxy.has_listeners(slot) {
            return;
        }
        if let Err(error) = self.dataplane.close_listeners(slot) {
            // Without its listener nothing is handed over either.
            tracing::warn!(slot = slot.get(), "cannot tidy up after a door: {error:#}");
        }
        self.proxy.close_listeners(slot);
    }
}
