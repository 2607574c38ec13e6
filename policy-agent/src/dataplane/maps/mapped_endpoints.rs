//! The fields of `SANDBOXES` that change while an interface uses the slot. Each is stored at once.

use std::{mem::offset_of, path::Path, sync::atomic::AtomicU32};

use anyhow::Result;
use policy_common::endpoint::SandboxEndpoint;

use crate::dataplane::{
    Slot,
    maps::{mapped_words::MappedWords, pinned_maps::open_pinned_data},
};

/// `SANDBOXES`, mapped.
pub(crate) struct MappedEndpoints {
    mapped: MappedWords,
}

impl MappedEndpoints {
    /// Maps the pinned map.
    pub(crate) fn open(pin: &Path) -> Result<Self> {
        Ok(Self { mapped: MappedWords::map(&open_pinned_data(pin)?)? })
    }

    /// [`SandboxEndpoint::flags`] of a slot.
    pub(crate) fn flags(&self, slot: Slot) -> &AtomicU32 {
        self.field(slot, offset_of!(SandboxEndpoint, flags))
    }

    /// [`SandboxEndpoint::policy_block`] of a slot.
    pub(crate) fn policy_block(&self, slot: Slot) -> &AtomicU32 {
        self.field(slot, offset_of!(SandboxEndpoint, policy_block))
    }

    fn field(&self, slot: Slot, offset: usize) -> &AtomicU32 {
        let start = slot.get() as usize * size_of::<SandboxEndpoint>();
        &self.mapped.words()[(start + offset) / size_of::<AtomicU32>()]
    }
}
