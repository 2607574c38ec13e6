//! Waits until no program that runs now uses what it has read before.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;

use crate::dataplane::maps::bpf_syscall;

/// A map whose updates wait for the programs: after an update of an array of maps, bpf(2) returns
/// when no running program can still use the old map.
pub(crate) struct GracePeriod {
    outer: OwnedFd,
    inner: MapData,
}

impl GracePeriod {
    pub(crate) fn new() -> Result<Self> {
        let shape = aya_obj::Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, 4, 4, 1, 0);
        let inner = MapData::create(shape, "policy_grace", None)?;
        let outer = bpf_syscall::create_array_of_maps(1, inner.fd().as_fd())
            .context("cannot create a map")?;
        Ok(Self { outer, inner })
    }

    /// Waits, usually for 10 to 20 ms.
    pub(crate) fn wait(&self) -> Result<()> {
        let inner = std::os::fd::AsRawFd::as_raw_fd(&self.inner.fd().as_fd());
        bpf_syscall::update_element(self.outer.as_fd(), &0_u32, &inner)
            .context("cannot wait for the programs that run")
    }
}
