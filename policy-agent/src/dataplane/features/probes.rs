//! Probes features of the running kernel. Probes have no side effects: the maps that they create
//! are never filled and are closed immediately.
//!
//! `None` means that the result is inconclusive, for example because the process lacks permission.

use std::{fs, io, os::fd::AsFd as _};

use aya::{
    maps::{MapData, MapError},
    programs::{ProgramError, SchedClassifier, TcAttachType, tc::TcError},
};
use aya_obj::generated::{
    BPF_F_NO_PREALLOC,
    bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_LPM_TRIE},
};
use policy_common::policy_table::SMALL_TABLE_MEMORY_WORDS;

use super::{kernel_types::KernelTypes, skb_layout::CONTEXT_CAST_FUNCTION};
use crate::dataplane::{guard, maps::bpf_syscall};

/// Key size of a trie with one byte of data: prefix length and data.
const SMALLEST_TRIE_KEY: u32 = 5;

/// For features that cannot be probed, or are not.
pub(super) fn no_probe() -> Option<bool> {
    None
}

/// Lists the tcx programs of the loopback interface, which every namespace has.
pub(super) fn probe_tcx() -> Option<bool> {
    let error = match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => return Some(true),
        Err(ProgramError::SyscallError(error)) => error.io_error,
        Err(ProgramError::TcError(TcError::IoError(error))) => error,
        Err(_) => return None,
    };
    // The kernel does not know this hook.
    (error.raw_os_error() == Some(libc::EINVAL)).then_some(false)
}

pub(super) fn probe_lpm_trie_batch() -> Option<bool> {
    let kind = BPF_MAP_TYPE_LPM_TRIE as u32;
    // LPM tries require the flag.
    let trie = create_map(kind, SMALLEST_TRIE_KEY, 4, BPF_F_NO_PREALLOC).ok()?;
    bpf_syscall::accepts_batches(trie.fd().as_fd())
}

/// Creates an array with the smallest value that is too large for some kernels.
pub(super) fn probe_large_map_values() -> Option<bool> {
    let value_size = u32::try_from((SMALL_TABLE_MEMORY_WORDS + 1) * size_of::<u32>()).ok()?;
    match create_map(BPF_MAP_TYPE_ARRAY as u32, 4, value_size, 0) {
        Ok(_) => Some(true),
        Err(MapError::CreateError { io_error, .. }) => is_too_large(&io_error).then_some(false),
        Err(_) => None,
    }
}

/// Loads the smallest program.
pub(super) fn probe_netfilter_links() -> Option<bool> {
    match guard::load_empty_program() {
        Ok(_) => Some(true),
        // The kernel does not know this type of program.
        Err(error) => (error.raw_os_error() == Some(libc::EINVAL)).then_some(false),
    }
}

/// Looks for the function in the kernel's BTF.
pub(super) fn probe_context_cast() -> Option<bool> {
    let types = KernelTypes::of_running_kernel().ok()?;
    Some(types.function_id(CONTEXT_CAST_FUNCTION).is_some())
}

/// The file is only present in the initial network namespace, and only readable by root.
pub(super) fn probe_jit() -> Option<bool> {
    let state = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok()?;
    Some(state.trim() != "0")
}

fn create_map(kind: u32, key_size: u32, value_size: u32, flags: u32) -> Result<MapData, MapError> {
    let shape = aya_obj::Map::new_from_params(kind, key_size, value_size, 1, flags);
    MapData::create(shape, "policy_probe", None)
}

fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::E2BIG)
}
