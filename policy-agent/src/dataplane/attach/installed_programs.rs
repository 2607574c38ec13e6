//! Records which programs are in the program arrays, so that an agent that starts with the same
//! programs need not load them: the verifier takes longer than all else at a start.
//!
//! ```text
//! <bpffs>/v<ABI>/programs/<digest>/tc-4-1234    program 1234 is at index 4 of the array for TC
//! ```
//!
//! The digest covers everything that a program is made of. A BPF file system and the IDs of programs
//! last until the host restarts.

use std::{fs, os::fd::AsFd as _, path::PathBuf};

use anyhow::{Context as _, Result};
use policy_common::bpf_names::{TC_PROGRAMS, XDP_PROGRAMS, tail_call_index};
use sha2::{Digest as _, Sha256};

use crate::{
    dataplane::maps::{
        bpf_syscall,
        pin_directory::{self, PinDirectory},
        pinned_maps,
    },
    hex::HexDisplay,
};

/// Length of a digest in bytes.
const DIGEST_BYTES: usize = 16;

/// The record of the programs that are made of certain parts.
pub(super) struct ProgramRecord {
    pins: PinDirectory,
    directory: PathBuf,
}

impl ProgramRecord {
    /// The record of programs that are made of these parts.
    pub(super) fn new(pins: &PinDirectory, parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_ne_bytes());
            digest.update(part);
        }
        let digest = HexDisplay(&digest.finalize()[..DIGEST_BYTES]).to_string();
        Self { directory: pins.programs_directory().join(digest), pins: pins.clone() }
    }

    /// The ID of `from_sandbox`, if the recorded programs are those in the arrays now.
    pub(super) fn find_installed(&self) -> Result<Option<u32>> {
        let recorded = pin_directory::directory_entries(&self.directory)?;
        if recorded.is_empty() || recorded != self.installed_names()? {
            return Ok(None);
        }
        let array = pinned_maps::open_pinned_data(&self.pins.map_path(TC_PROGRAMS))?;
        Ok(bpf_syscall::lookup_word(array.fd().as_fd(), tail_call_index::FROM_SANDBOX).ok())
    }

    /// Records the programs that are in the arrays now.
    pub(super) fn write(&self) -> Result<()> {
        for name in self.installed_names()? {
            let path = self.directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes the record of whatever programs are in the arrays, before they are replaced.
    pub(super) fn clear(&self) -> Result<()> {
        pin_directory::remove_tree(&self.pins.programs_directory())
    }

    /// Names the programs in the arrays, sorted.
    fn installed_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let arrays = [
            ("tc", TC_PROGRAMS, tail_call_index::TC_COUNT),
            ("xdp", XDP_PROGRAMS, tail_call_index::XDP_COUNT),
        ];
        for (prefix, array, count) in arrays {
            let array = pinned_maps::open_pinned_data(&self.pins.map_path(array))?;
            for index in 0..count {
                if let Ok(id) = bpf_syscall::lookup_word(array.fd().as_fd(), index) {
                    names.push(format!("{prefix}-{index}-{id}"));
                }
            }
        }
        names.sort();
        Ok(names)
    }
}
