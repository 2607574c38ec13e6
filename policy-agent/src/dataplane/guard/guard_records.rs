//! Records which interfaces are guarded, and for which sandbox. A BPF file system holds no files, so
//! a record is an empty directory:
//!
//! ```text
//! <bpffs>/v<ABI>/guard/records/<id>/slot-<hex>    the interface's name and namespace
//! ```

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::dataplane::{
    HostInterface,
    maps::pin_directory::{self, PinDirectory},
};

/// The records below one pin directory.
pub(super) struct GuardRecords {
    directory: PathBuf,
}

impl GuardRecords {
    /// Those in `pins`.
    pub(super) fn new(pins: &PinDirectory) -> Self {
        Self { directory: pins.guard_directory().join("records") }
    }

    /// Reads all records: pin names and interfaces.
    pub(super) fn load(&self) -> Result<Vec<(String, HostInterface)>> {
        let mut records = Vec::new();
        for id in pin_directory::directory_entries(&self.directory)? {
            let names = pin_directory::directory_entries(&self.directory.join(&id))?;
            let interfaces = names.iter().filter_map(|name| HostInterface::from_pin_name(name));
            records.extend(interfaces.map(|interface| (id.clone(), interface)));
        }
        Ok(records)
    }

    /// Records the interface of `id` in place of another. What is too long for a file name is not
    /// recorded.
    pub(super) fn write(&self, id: &str, interface: &HostInterface) -> Result<()> {
        let Some(record) = interface.pin_name() else { return Ok(()) };
        let directory = self.directory.join(id);
        let path = directory.join(&record);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        for other in pin_directory::directory_entries(&directory)? {
            if other != record {
                pin_directory::remove_tree(&directory.join(other))?;
            }
        }
        Ok(())
    }

    /// Removes the record of `id`, if any.
    pub(super) fn remove(&self, id: &str) -> Result<()> {
        pin_directory::remove_tree(&self.directory.join(id))
    }
}
