//! Huge tables, where the kernel can have them: some (Linux 5.10) refuse values of maps larger than
//! 4 MiB. There the programs do without, and what is too much for a large table stays in a trie.

use std::{os::fd::AsFd as _, sync::LazyLock};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapError};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use policy_common::{
    bpf_names::{HUGE_V4, HUGE_V6},
    endpoint::MAX_SANDBOXES,
    poptrie::LARGE_POPTRIE_WORDS,
};

use crate::dataplane::maps::{bpf_syscall, pin_directory::PinDirectory};

/// Not 0 if this kernel has them: the global [`HUGE_POPTRIES`](policy_common::bpf_names::HUGE_POPTRIES).
pub static HUGE_POPTRIES_SUPPORTED: LazyLock<u32> = LazyLock::new(|| {
    let tried = create_array((LARGE_POPTRIE_WORDS + 1) * size_of::<u64>());
    u32::from(!matches!(tried, Err(error) if is_too_large(&error)))
});

/// Puts maps in the place of those that this kernel cannot have. The programs never look into them.
pub fn pin_placeholders(pins: &PinDirectory) -> Result<()> {
    if *HUGE_POPTRIES_SUPPORTED != 0 {
        return Ok(());
    }
    for name in [HUGE_V4, HUGE_V6] {
        let pin = pins.map_path(name);
        if !pin.exists() {
            let inner = create_array(size_of::<u64>())?;
            let map = bpf_syscall::create_array_of_maps(MAX_SANDBOXES, inner.fd().as_fd())
                .with_context(|| format!("cannot make a map in the place of {name}"))?;
            MapData::from_fd(map)?.pin(&pin)?;
        }
    }
    Ok(())
}

fn create_array(value_size: usize) -> Result<MapData, MapError> {
    let kind = BPF_MAP_TYPE_ARRAY as u32;
    #[expect(clippy::cast_possible_truncation, reason = "some MiB")]
    let shape = aya_obj::Map::new_from_params(kind, 4, value_size as u32, 1, 0);
    MapData::create(shape, "policy_table", None)
}

fn is_too_large(error: &MapError) -> bool {
    let MapError::CreateError { io_error, .. } = error else { return false };
    io_error.raw_os_error() == Some(libc::E2BIG)
}
