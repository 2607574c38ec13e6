//! Gates that an earlier agent attached for sandboxes without a state file. They keep enforcing the
//! same policy until their sandbox is applied again or deleted.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, bail};

use super::{
    dataplane_control::DataplaneControl,
    sandbox::{EnforcementStatus, Sandbox, interface_for},
};
use crate::dataplane::HostInterface;

/// The names under which orphaned gates are pinned.
pub(crate) struct OrphanedPins {
    dataplane: Arc<dyn DataplaneControl>,
    pin_names: BTreeSet<String>,
}

impl OrphanedPins {
    /// Starts without known orphans.
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>) -> Self {
        Self { dataplane, pin_names: BTreeSet::new() }
    }

    /// Records all gates in the kernel as orphans, except for those that `has_owner` accepts.
    /// Returns the names of all gates.
    pub(crate) fn load(&mut self, has_owner: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
        let pinned = self.dataplane.attached_pin_names().context("cannot list what is attached")?;
        let pinned: BTreeSet<String> = pinned.into_iter().collect();
        self.pin_names = pinned.iter().filter(|pin_name| !has_owner(pin_name)).cloned().collect();
        Ok(pinned)
    }

    /// The names under which the orphaned gates are pinned.
    pub(crate) fn pin_names(&self) -> &BTreeSet<String> {
        &self.pin_names
    }

    /// Returns whether an earlier agent attached gates for this sandbox.
    pub(crate) fn has_gates_of(&self, sandbox: &Sandbox) -> bool {
        sandbox.is_pinned_in(&self.pin_names)
    }

    /// Records that the gates with this name belong to a sandbox again.
    pub(crate) fn adopt(&mut self, pin_name: &str) {
        self.pin_names.remove(pin_name);
    }

    /// Detaches the orphaned gates with this name. Returns `false` if there are none.
    pub(crate) fn detach(&mut self, pin_name: &str) -> Result<bool> {
        if !self.pin_names.contains(pin_name) {
            return Ok(false);
        }
        self.dataplane.detach(pin_name)?;
        self.dataplane.release_guard(pin_name)?;
        Ok(self.pin_names.remove(pin_name))
    }

    /// Detaches the gates that an earlier agent attached for a sandbox under another name.
    pub(crate) fn detach_gates_of(&mut self, sandbox: &Sandbox) {
        let id = sandbox.id().as_str();
        if *sandbox.pin_name == *id {
            return self.adopt(id);
        }
        if let Err(error) = self.detach(id) {
            tracing::error!(sandbox = id, "cannot detach what an earlier agent left: {error:#}");
        }
    }

    /// Keeps the orphaned gates of a sandbox that was not created. Without them, everything would
    /// pass. Fails if they may point to the slot of the failed change.
    pub(crate) fn keep_gates_of(&self, sandbox: &Sandbox) -> Result<()> {
        match self.dataplane.attached_slot(&sandbox.pin_name)? {
            Some(slot) if slot != sandbox.slot => Ok(()),
            _ => bail!("the gates of an earlier agent may name its slot by now"),
        }
    }

    /// Detaches gates that were replaced because their interface is new in `[[interfaces]]`, and
    /// those of interfaces that are no longer in `[[interfaces]]`.
    pub(crate) fn detach_superseded(&mut self, sandboxes: &[Arc<Sandbox>]) {
        let mut superseded = self.pin_names.clone();
        superseded.retain(|pin_name| HostInterface::from_pin_name(pin_name).is_some());
        for sandbox in sandboxes {
            let pool_pin_name = interface_for(&sandbox.base_spec).pin_name();
            let names = [Some(sandbox.id().to_string()), pool_pin_name].into_iter().flatten();
            for name in names.filter(|name| self.pin_names.contains(name)) {
                match sandbox.status {
                    EnforcementStatus::Failed(_) => superseded.remove(&name),
                    _ => superseded.insert(name),
                };
            }
        }
        for pin_name in superseded {
            if let Err(error) = self.detach(&pin_name) {
                tracing::error!(pin_name, "cannot detach what was replaced: {error:#}");
            }
        }
    }
}
