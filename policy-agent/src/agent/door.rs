//! The door of a sandbox: how its connections come to the egress proxy. It is open before the kernel
//! hands anything over, and shut when nothing is any more.
//!
//! A door's listeners stand in the namespace of the sandbox's interface and would keep it alive, so
//! the door of an interface that went is shut.

use anyhow::{Result, bail};

use super::{
    presence::Presence,
    reconciler::Reconciler,
    sandbox::{Sandbox, Status, interface},
};
use crate::{
    dataplane::Slot,
    policy::{Invalid, Policy, SandboxSpec},
};

/// What is wrong with a bridge between a sandbox and the egress proxy.
const PORT: &str = "is a port of a bridge (or bond), which takes the sandbox's frames before domain \
                    rules and egressProxy can be applied to them; take it off the bridge and route \
                    to it, or write rules for addresses only";

impl Reconciler {
    /// The sandbox's connections can come to the proxy, if they have to.
    pub(super) fn check_way(&self, spec: &SandboxSpec, policy: &Policy) -> Result<(), Invalid> {
        let is_needed = policy.has_names() || policy.tunnel().is_some();
        // One that cannot be looked at is not attached either.
        if is_needed && self.kernel.is_port(&interface(spec)).unwrap_or(false) {
            return Err(Invalid::entry("interface", &spec.interface, PORT));
        }
        Ok(())
    }

    /// Opens the door of a sandbox that needs one and has none.
    pub(super) fn open_door(&self, sandbox: &Sandbox) -> Result<()> {
        if !sandbox.rules.need_proxy() || self.egress.is_open(sandbox.slot) {
            return Ok(());
        }
        let door = self.kernel.open_door(sandbox.slot, &interface(&sandbox.head))?;
        let (id, tally) = (sandbox.id(), sandbox.life.tally());
        let opened = self.egress.open(sandbox.slot, id, tally, &sandbox.rules, door);
        opened.inspect_err(|_| {
            // What went wrong first is what to tell.
            let _ = self.kernel.close_door(sandbox.slot);
        })
    }

    /// The same if its interface is there; else it is opened when that appears.
    pub(super) fn prepare_door(&self, sandbox: &Sandbox) -> Result<()> {
        match self.kernel.presence(&interface(&sandbox.head)) {
            Presence::Here(_) => self.open_door(sandbox),
            _ => Ok(()),
        }
    }

    /// Has the proxy follow the rules that are in force now. Connections that they do not let out
    /// are closed.
    pub(super) fn follow_rules(&self, sandbox: &Sandbox) -> Result<()> {
        if sandbox.status == Status::InterfaceMissing || !sandbox.rules.need_proxy() {
            self.shut_door(sandbox.slot);
            return Ok(());
        }
        if sandbox.status == Status::Enforcing {
            // It may have become one by now.
            if self.kernel.is_port(&interface(&sandbox.head)).unwrap_or(false) {
                bail!("interface: {:?} {PORT}", sandbox.head.interface);
            }
            self.open_door(sandbox)?;
        }
        self.egress.follow(sandbox.slot, &sandbox.rules);
        Ok(())
    }

    /// Shuts a slot's door, if it has one.
    pub(super) fn shut_door(&self, slot: Slot) {
        if !self.egress.is_open(slot) {
            return;
        }
        if let Err(error) = self.kernel.close_door(slot) {
            // Without its listener nothing is handed over either.
            tracing::warn!(slot = slot.get(), "cannot tidy up after a door: {error:#}");
        }
        self.egress.close(slot);
    }
}
