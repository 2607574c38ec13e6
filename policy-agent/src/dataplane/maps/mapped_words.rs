//! Array maps with `BPF_F_MMAPABLE` (Linux 5.5), mapped into the agent's memory. A store to them is
//! visible to the next packet, without a system call.

use std::{
    num::NonZeroUsize,
    os::{fd::AsFd as _, raw::c_void},
    ptr::NonNull,
    sync::atomic::AtomicU32,
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The values of an array map, as words.
pub(crate) struct MappedWords {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
}

// SAFETY: the memory is shared with the kernel programs anyway. It is only accessed atomically.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps an array with values of whole words.
    ///
    /// # Errors
    ///
    /// The map is not an array that can be mapped, or there is too little memory.
    pub(crate) fn map(map: &MapData) -> Result<Self> {
        let info = map.info()?;
        let value = usize::try_from(info.value_size())?.next_multiple_of(8);
        let bytes = NonZeroUsize::new(value * usize::try_from(info.max_entries())?)
            .context("the map is empty")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start =
            unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
                .context("cannot map the array")?;
        Ok(Self { start, bytes })
    }

    /// All words.
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is page-aligned, has this size, and exists as long as `self`. All
        // accesses are atomic, those of the kernel programs included.
        unsafe {
            std::slice::from_raw_parts(
                self.start.cast().as_ptr(),
                self.bytes.get() / size_of::<AtomicU32>(),
            )
        }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`, and no reference to it is left.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}
