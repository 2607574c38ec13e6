//! The gates of sandboxes on their interfaces.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{
    dataplane_control::DataplaneControl,
    interface_state::{InterfaceState, namespace_id},
    orphaned_pins::OrphanedPins,
    proxy_redirects::ProxyRedirects,
    sandbox::{AttachPoint, EnforcementStatus, Sandbox, interface_for},
};
use crate::dataplane::{HostInterface, Slot};

/// How many times gates are attached that another program detaches at once.
const ATTACH_ATTEMPTS: usize = 3;

/// Attaches gates and detaches them.
pub(crate) struct Attachments {
    dataplane: Arc<dyn DataplaneControl>,
    /// What an earlier agent attached for sandboxes that no state file names.
    pub(crate) orphans: OrphanedPins,
}

impl Attachments {
    /// No orphans are known yet.
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>) -> Self {
        Self { orphans: OrphanedPins::new(Arc::clone(&dataplane)), dataplane }
    }

    /// Attaches an interface to a slot, with gates pinned under this name. Tries again where another
    /// program detaches them meanwhile.
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
        bail!("interface: another program detached the gates on {} at once", interface.name)
    }

    /// Removes the gates with this name.
    pub(crate) fn detach(&self, pin_name: &str) -> Result<()> {
        self.dataplane.detach(pin_name)
    }

    /// Whether gates point to this slot, and are on the interface that now has the name.
    pub(crate) fn is_attached(
        &self,
        pin_name: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> bool {
        self.dataplane.is_attached(pin_name, slot, interface).unwrap_or(false)
    }

    /// The same for a sandbox that was attached before.
    pub(crate) fn is_sandbox_attached(&self, sandbox: &Sandbox) -> bool {
        let interface = interface_for(&sandbox.base_spec);
        sandbox.attach_point.is_some()
            && self.is_attached(&sandbox.pin_name, sandbox.slot, &interface)
    }

    /// Attaches a sandbox where its interface is now. Its proxy listeners are closed if that is another
    /// network namespace than before.
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

    /// Makes sure that a sandbox is still attached: another interface may have its name now.
    pub(crate) fn ensure_attached(
        &self,
        sandbox: &mut Sandbox,
        redirects: &ProxyRedirects,
    ) -> Result<()> {
        if self.is_sandbox_attached(sandbox) {
            sandbox.status = EnforcementStatus::Enforcing;
            return Ok(());
        }
        self.switch_slot(sandbox, redirects)
    }

    /// Points the gates of a sandbox to its slot, in one step for every packet. A sandbox whose
    /// interface is missing is detached.
    pub(crate) fn switch_slot(
        &self,
        sandbox: &mut Sandbox,
        redirects: &ProxyRedirects,
    ) -> Result<()> {
        match self.dataplane.interface_state(&interface_for(&sandbox.base_spec)) {
            InterfaceState::Present(_) => {
                self.attach_sandbox(sandbox, redirects)?;
                sandbox.status = EnforcementStatus::Enforcing;
                return Ok(());
            }
            // The interface may exist. Without its gates, everything would pass.
            InterfaceState::Unknown(problem) => bail!("cannot look for its interface: {problem}"),
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => {}
        }
        self.dataplane.detach(&sandbox.pin_name)?;
        (sandbox.attach_point, sandbox.status) = (None, EnforcementStatus::InterfaceMissing);
        Ok(())
    }

    /// Points the gates of a sandbox back to its slot, if they point elsewhere.
    pub(crate) fn switch_back(&self, sandbox: &Sandbox) -> Result<()> {
        let interface = interface_for(&sandbox.base_spec);
        if self.dataplane.is_attached(&sandbox.pin_name, sandbox.slot, &interface)? {
            return Ok(());
        }
        self.dataplane.attach(&sandbox.pin_name, sandbox.slot, &interface)
    }

    /// Attaches a sandbox if its interface exists, and sets its status.
    pub(crate) fn reattach_if_present(&self, sandbox: &mut Sandbox, redirects: &ProxyRedirects) {
        let (before, attach_point) = (sandbox.status.clone(), sandbox.attach_point);
        sandbox.status = match self.dataplane.interface_state(&interface_for(&sandbox.base_spec)) {
            InterfaceState::Present(_) => match self.attach_sandbox(sandbox, redirects) {
                Ok(()) => EnforcementStatus::Enforcing,
                Err(error) => EnforcementStatus::Failed(format!("{error:#}")),
            },
            InterfaceState::Unknown(_) => return,
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => {
                EnforcementStatus::InterfaceMissing
            }
        };
        if sandbox.status != EnforcementStatus::Enforcing {
            sandbox.attach_point = None;
        }
        log_status_change(sandbox, &before, attach_point);
    }

    /// Finds the gates of an adopted sandbox in place. `false`: it is not attached.
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

    /// Pins again what somebody unpinned.
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
    // The kernel never detaches gates from an interface that stays.
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
