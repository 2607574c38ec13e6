//! The pins of the maps. They form a set, because gates, programs and agent must use the same maps.

use std::{fs, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData};
use policy_common::bpf_names;

use crate::dataplane::maps::pin_directory::{self, PinDirectory};

/// Handles of all pinned maps, so that removed pins can be restored.
pub(crate) struct PinnedMaps {
    handles: Vec<(&'static str, MapData)>,
    pins: PinDirectory,
}

/// Opens a pinned map, whatever its type.
pub(crate) fn open_pinned_map(pin: &Path) -> Result<Map> {
    Ok(Map::from_map_data(open_pinned_data(pin)?)?)
}

/// Opens a pinned map as a handle without a type.
pub(crate) fn open_pinned_data(pin: &Path) -> Result<MapData> {
    MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))
}

/// Removes the remaining pins if some are missing, so that a new set is created. Attached gates
/// hold the old maps and enforce with them until they are replaced. Returns the old program arrays,
/// which the kernel would clear if nothing held them.
pub(crate) fn discard_incomplete_set(pins: &PinDirectory) -> Result<Vec<MapData>> {
    let (there, missing): (Vec<_>, Vec<_>) =
        bpf_names::PINNED_MAPS.into_iter().partition(|name| pins.map_path(name).exists());
    if there.is_empty() || missing.is_empty() {
        return Ok(Vec::new());
    }
    let kept = open_program_arrays(pins);
    tracing::warn!("pins of maps are gone ({}): making all of them anew", missing.join(", "));
    for name in there {
        let pin = pins.map_path(name);
        fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
    }
    Ok(kept)
}

/// Whether all maps are pinned.
pub(crate) fn is_complete_set(pins: &PinDirectory) -> bool {
    bpf_names::PINNED_MAPS.into_iter().all(|name| pins.map_path(name).exists())
}

fn open_program_arrays(pins: &PinDirectory) -> Vec<MapData> {
    let open = |name| MapData::from_pin(pins.map_path(name)).ok();
    [bpf_names::TC_PROGRAMS, bpf_names::XDP_PROGRAMS].into_iter().filter_map(open).collect()
}

impl PinnedMaps {
    /// Opens all pinned maps.
    pub(crate) fn open_all(pins: &PinDirectory) -> Result<Self> {
        let hold = |name| Ok((name, open_pinned_data(&pins.map_path(name))?));
        Ok(Self {
            handles: bpf_names::PINNED_MAPS.into_iter().map(hold).collect::<Result<_>>()?,
            pins: pins.clone(),
        })
    }

    /// Restores missing pins. Otherwise the next process that opens them would create empty maps.
    pub(crate) fn restore_missing_pins(&self) -> Result<()> {
        for (name, map) in &self.handles {
            let pin = self.pins.map_path(name);
            if pin.exists() {
                continue;
            }
            self.pins.create_directories()?;
            pin_directory::pin_with_retry(map.fd().as_fd(), &pin)?;
            tracing::warn!("{} was gone: pinned again", pin.display());
        }
        Ok(())
    }
}
