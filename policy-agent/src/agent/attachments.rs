//! Attaches the gates of sandboxes to their interfaces and detaches them.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{
    dataplane_control::DataplaneControl,
    interface_state::{InterfaceState, namespace_id},
    orphaned_pins::OrphanedPins,
    proxy_redirects::ProxyRedirects,
    sandbox::{AttachPoint, EnforcementStatus, Sandbox, interface_for},
};
use crate::{
    dataplane::{HostInterface, Slot},
    policy::ValidationError,
};

/// Maximum number of attempts when another program immediately detaches the gates.
const ATTACH_ATTEMPTS: usize = 3;

/// Attaches and detaches the gates of sandboxes.
pub(crate) struct Attachments {
    dataplane: Arc<dyn DataplaneControl>,
    /// Gates that an earlier agent attached for sandboxes without a state file.
    pub(crate) orphans: OrphanedPins,
}

impl Attachments {
    /// Starts without known orphans.
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>) -> Self {
        Self { orphans: OrphanedPins::new(Arc::clone(&dataplane)), dataplane }
    }

    /// Attaches gates for a slot to an interface and pins them under this name. Retries if another
    /// program detaches them in the meantime.
    pub(crate) fn attach(
        &self,
        pin_name: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<AttachPoint> {
        let namespace = namespace_id(interface.netns.as_deref()).ok();
        let ifindex = self.dataplane.interface_state(interface).require_index(interface)?;
        for _ in 0..ATTACH_ATTEMPTS {
            self.dataplane.attach(pin_name, slot, interface)?;
            if self.dataplane.is_attached(pin_name, slot, interface)? {
                return Ok(AttachPoint { namespace, ifindex });
            }
        }
        let problem = "another program detaches the gates at once; stop it";
        Err(ValidationError::about_entry("interface", &interface.name, problem).into())
    }

    /// Detaches the gates with this name, and leaves their interface unguarded.
    pub(crate) fn detach(&self, pin_name: &str) -> Result<()> {
        self.dataplane.detach(pin_name)?;
        self.dataplane.release_guard(pin_name)
    }

    /// Detaches the gates of an interface that is missing. It stays guarded, so that nothing passes
    /// when it comes back.
    pub(crate) fn detach_missing(
        &self,
        pin_name: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<()> {
        self.dataplane.detach(pin_name)?;
        self.guard(pin_name, slot, interface)
    }

    /// Guards an interface. That of a container that does not run has no name.
    fn guard(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<()> {
        if interface.name.is_empty() {
            return self.release_guard(pin_name);
        }
        self.dataplane.guard_interface(pin_name, slot, interface)
    }

    /// Stops guarding the interface with this pin name.
    pub(crate) fn release_guard(&self, pin_name: &str) -> Result<()> {
        self.dataplane.release_guard(pin_name)
    }

    /// Guards an interface that is missing.
    pub(crate) fn guard_missing(&self, pin_name: &str, slot: Slot, interface: &HostInterface) {
        if let Err(error) = self.guard(pin_name, slot, interface) {
            tracing::error!(interface = interface.name, "cannot guard it: {error:#}");
        }
    }

    /// Returns whether the gates with this name point to this slot and are attached to the
    /// interface that has the name now. `false` if the kernel cannot be queried.
    pub(crate) fn is_attached(
        &self,
        pin_name: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> bool {
        self.dataplane.is_attached(pin_name, slot, interface).unwrap_or(false)
    }

    /// Returns whether a sandbox that was attached before still is.
    pub(crate) fn is_sandbox_attached(&self, sandbox: &Sandbox) -> bool {
        let interface = interface_for(&sandbox.base_spec);
        sandbox.attach_point.is_some()
            && self.is_attached(&sandbox.pin_name, sandbox.slot, &interface)
    }

    /// Attaches a sandbox to its current interface. Closes its proxy listeners if the network
    /// namespace has changed.
    pub(crate) fn attach_sandbox(
        &self,
        sandbox: &mut Sandbox,
        redirects: &ProxyRedirects,
    ) -> Result<()> {
        let before = sandbox.attach_point.and_then(|point| point.namespace);
        let attach_point =
            self.attach(&sandbox.pin_name, sandbox.slot, &interface_for(&sandbox.base_spec))?;
        if before.is_some() && attach_point.namespace != before {
            redirects.close(sandbox.slot);
        }
        sandbox.attach_point = Some(attach_point);
        Ok(())
    }

    /// Points the gates of a sandbox to its slot, atomically for every packet. Detaches a sandbox
    /// whose interface is missing.
    pub(crate) fn switch_slot(
        &self,
        sandbox: &mut Sandbox,
        redirects: &ProxyRedirects,
    ) -> Result<()> {
        let interface = interface_for(&sandbox.base_spec);
        match self.dataplane.interface_state(&interface) {
            InterfaceState::Present(_) => {
                self.attach_sandbox(sandbox, redirects)?;
                sandbox.status = EnforcementStatus::Enforcing;
                return Ok(());
            }
            // The interface may exist. Without its gates, everything would pass.
            InterfaceState::Unknown(problem) => bail!("cannot look for its interface: {problem}"),
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => {}
        }
        self.detach_missing(&sandbox.pin_name, sandbox.slot, &interface)?;
        (sandbox.attach_point, sandbox.status) = (None, EnforcementStatus::InterfaceMissing);
        Ok(())
    }

    /// Points the gates of a sandbox back to its slot if they point to another one.
    pub(crate) fn switch_back(&self, sandbox: &Sandbox) -> Result<()> {
        let interface = interface_for(&sandbox.base_spec);
        if self.dataplane.is_attached(&sandbox.pin_name, sandbox.slot, &interface)? {
            return Ok(());
        }
        self.dataplane.attach(&sandbox.pin_name, sandbox.slot, &interface)
    }

    /// Attaches a sandbox if its interface exists, and updates its status.
    pub(crate) fn reattach_if_present(&self, sandbox: &mut Sandbox, redirects: &ProxyRedirects) {
        let (before, attach_point) = (sandbox.status.clone(), sandbox.attach_point);
        let interface = interface_for(&sandbox.base_spec);
        sandbox.status = match self.dataplane.interface_state(&interface) {
            InterfaceState::Present(_) => match self.attach_sandbox(sandbox, redirects) {
                Ok(()) => EnforcementStatus::Enforcing,
                Err(error) => EnforcementStatus::Failed(format!("{error:#}")),
            },
            InterfaceState::Unknown(_) => return,
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => {
                self.guard_missing(&sandbox.pin_name, sandbox.slot, &interface);
                EnforcementStatus::InterfaceMissing
            }
        };
        if sandbox.status != EnforcementStatus::Enforcing {
            sandbox.attach_point = None;
        }
        log_status_change(sandbox, &before, attach_point);
    }

    /// Adopts the attached gates of a sandbox. Returns `false` if it is not attached.
    pub(crate) fn adopt(&self, sandbox: &mut Sandbox) -> bool {
        let interface = interface_for(&sandbox.base_spec);
        if !self.is_attached(&sandbox.pin_name, sandbox.slot, &interface) {
            return false;
        }
        if let InterfaceState::Present(ifindex) = self.dataplane.interface_state(&interface) {
            let namespace = namespace_id(interface.netns.as_deref()).ok();
            sandbox.attach_point = Some(AttachPoint { namespace, ifindex });
        }
        true
    }

    /// Restores pins that another program removed.
    pub(crate) fn restore_pins(&self) {
        if let Err(error) = self.dataplane.restore_pins() {
            tracing::error!("cannot pin the maps again: {error:#}");
        }
    }
}

/// Logs how reattaching changed a sandbox that had this status and attach point before.
fn log_status_change(
    sandbox: &Sandbox,
    before: &EnforcementStatus,
    attach_point: Option<AttachPoint>,
) {
    let interface = &sandbox.base_spec.interface;
    // The kernel never detaches gates from an interface that continues to exist.
    let was_attached = *before == EnforcementStatus::Enforcing && attach_point.is_some();
    match &sandbox.status {
        EnforcementStatus::Enforcing if was_attached && attach_point == sandbox.attach_point => {
            tracing::warn!(
                sandbox = %sandbox.id(),
                interface,
                "its gates were gone, or behind another program; attached again: what it sent \
                 meanwhile was not judged"
            )
        }
        EnforcementStatus::Enforcing => {
            tracing::info!(sandbox = %sandbox.id(), interface, "attached")
        }
        EnforcementStatus::Failed(reason) if was_attached => tracing::error!(
            sandbox = %sandbox.id(),
            interface,
            "its gates are gone, or behind another program, and cannot be attached: what it \
             sends is not judged: {reason}"
        ),
        status if status != before => {
            tracing::warn!(sandbox = %sandbox.id(), "not attached: {status}");
        }
        _ => {}
    }
}
