//! The pins of the maps, which belong together: gates, programs and agent have to find the same ones.

use std::{fs, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use policy_common::bpf_names;

use crate::dataplane::maps::{
    pin_directory::{self, PinDirectory},
    policy_maps::PUBLISHED_MAP_NAME,
};

/// All pinned maps, held so that their pins can be put back.
pub struct PinnedMaps {
    handles: Vec<(&'static str, MapData)>,
    pins: PinDirectory,
}

fn pinned_map_names() -> impl Iterator<Item = &'static str> {
    bpf_names::PINNED_MAPS.into_iter().chain([PUBLISHED_MAP_NAME])
}

/// Makes way for a whole new set where pins are missing: what is left of the old one goes. Gates that
/// are attached hold their own and go on enforcing with them until they are replaced. Returns their
/// tables of programs, which the kernel would empty if nobody else held them.
pub fn discard_incomplete_set(pins: &PinDirectory) -> Result<Vec<MapData>> {
    let (there, missing): (Vec<_>, Vec<_>) =
        pinned_map_names().partition(|name| pins.map_path(name).exists());
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

fn open_program_arrays(pins: &PinDirectory) -> Vec<MapData> {
    let open = |name| MapData::from_pin(pins.map_path(name)).ok();
    [bpf_names::TC_PROGRAMS, bpf_names::XDP_PROGRAMS].into_iter().filter_map(open).collect()
}

impl PinnedMaps {
    /// Holds the maps that are pinned.
    pub fn open_all(pins: &PinDirectory) -> Result<Self> {
        let hold = |name| {
            let pin = pins.map_path(name);
            let map = MapData::from_pin(&pin);
            Ok((name, map.with_context(|| format!("cannot open {}", pin.display()))?))
        };
        Ok(Self {
            handles: pinned_map_names().map(hold).collect::<Result<_>>()?,
            pins: pins.clone(),
        })
    }

    /// Puts pins back that somebody removed: whoever opens them next would make empty maps.
    pub fn restore_missing_pins(&self) -> Result<()> {
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
