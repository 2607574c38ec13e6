//! Expedites the kernel's grace periods while interfaces are attached and detached.
//!
//! Attaching and detaching wait for a grace period, 10 to 20 ms each, and hold the lock of the
//! network configuration meanwhile. An expedited one takes some ten microseconds, at the cost of an
//! interrupt on every CPU. The setting (`/sys/kernel/rcu_expedited`) is the machine's, so it is
//! restored after each change. A directory beside the pins remembers it in case the agent ends in
//! between.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const SETTING: &str = "/sys/kernel/rcu_expedited";
/// Exists while the agent has changed the setting.
const MARKER: &str = "rcu_expedited";

/// Changes the setting while there are users.
pub(crate) struct ExpeditedRcu {
    marker: PathBuf,
    is_allowed: bool,
    users: Mutex<usize>,
}

/// While it exists, grace periods are expedited, if possible.
pub struct ExpeditedSection<'a> {
    expedited: &'a ExpeditedRcu,
}

impl ExpeditedRcu {
    /// Restores the setting if an agent with these pins ended before it did. If not `is_allowed`,
    /// does not change it from now on.
    pub(crate) fn new(bpffs: &Path, is_allowed: bool) -> Self {
        restore_setting(bpffs);
        Self { marker: bpffs.join(MARKER), is_allowed, users: Mutex::new(0) }
    }

    /// Expedites grace periods until the section is dropped.
    pub(crate) fn enter(&self) -> ExpeditedSection<'_> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if *users == 0 && self.is_allowed {
            self.expedite();
        }
        *users += 1;
        ExpeditedSection { expedited: self }
    }

    /// Without permission, or if somebody else has changed the setting, it stays as it is.
    fn expedite(&self) {
        let is_default = fs::read_to_string(SETTING).is_ok_and(|value| value.trim() == "0");
        if is_default && fs::create_dir(&self.marker).is_ok() && write_setting("1").is_err() {
            let _ = fs::remove_dir(&self.marker);
        }
    }
}

impl Drop for ExpeditedSection<'_> {
    fn drop(&mut self) {
        let mut users = self.expedited.users.lock().unwrap_or_else(PoisonError::into_inner);
        *users -= 1;
        if *users == 0 {
            restore_marked(&self.expedited.marker);
        }
    }
}

/// Restores the setting if an agent with pins in this directory ended before it did.
pub(crate) fn restore_setting(bpffs: &Path) {
    restore_marked(&bpffs.join(MARKER));
}

fn restore_marked(marker: &Path) {
    if marker.exists() {
        match write_setting("0") {
            Ok(()) => drop(fs::remove_dir(marker)),
            Err(error) => tracing::error!("cannot write 0 to {SETTING}: {error}"),
        }
    }
}

fn write_setting(value: &str) -> io::Result<()> {
    fs::write(SETTING, value)
}
