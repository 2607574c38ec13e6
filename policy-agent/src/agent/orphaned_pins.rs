//! Gates that an earlier agent attached and no state file names. They go on enforcing what they did
//! until their sandbox is applied again or deleted.

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
    /// None are known yet.
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>) -> Self {
        Self { dataplane, pin_names: BTreeSet::new() }
    }

    /// Takes all gates in the kernel for orphans but those that `has_owner` accepts. Returns the names
    /// of all.
    pub(crate) fn load(&mut self, has_owner: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
        let pinned = self.dataplane.attached_pin_names().context("cannot list what is attached")?;
        let pinned: BTreeSet<String> = pinned.into_iter().collect();
        self.pin_names = pinned.iter().filter(|pin_name| !has_owner(pin_name)).cloned().collect();
        Ok(pinned)
    }

    /// Their names.
    pub(crate) fn pin_names(&self) -> &BTreeSet<String> {
        &self.pin_names
    }

    /// Whether an earlier agent attached gates for this sandbox.
    pub(crate) fn has_gates_of(&self, sandbox: &Sandbox) -> bool {
        sandbox.is_pinned_in(&self.pin_names)
    }

    /// The gates with this name belong to a sandbox again.
    pub(crate) fn adopt(&mut self, pin_name: &str) {
        self.pin_names.remove(pin_name);
    }

    /// Detaches the gates with this name. `false`: there are none.
    pub(crate) fn detach(&mut self, pin_name: &str) -> Result<bool> {
        if !self.pin_names.contains(pin_name) {
            return Ok(false);
        }
        self.dataplane.detach(pin_name)?;
        Ok(self.pin_names.remove(pin_name))
    }

    /// Detaches what an earlier agent attached for a sandbox under another name.
    pub(crate) fn detach_gates_of(&mut self, sandbox: &Sandbox) {
        let id = sandbox.id().as_str();
        if *sandbox.pin_name == *id {
            return self.adopt(id);
        }
        if let Err(error) = self.detach(id) {
            tracing::error!(sandbox = id, "cannot detach what an earlier agent left: {error:#}");
        }
    }

    /// Leaves the gates of a sandbox that was not created where they are: without them, everything
    /// would pass.
    pub(crate) fn keep_gates_of(&self, sandbox: &Sandbox) -> Result<()> {
        match self.dataplane.attached_slot(&sandbox.pin_name)? {
            Some(slot) if slot != sandbox.slot => Ok(()),
            _ => bail!("the gates of an earlier agent may name its slot by now"),
        }
    }

    /// Detaches gates that others have replaced, since `[[interfaces]]` names an interface that it did
    /// not name before, and those of an interface that it does not name any more.
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
