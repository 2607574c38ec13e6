//! The pins of the maps, which belong together: gates, programs and agent have to find the same ones.

use std::{fs, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use policy_common::name;

use super::{
    pins::{self, Pins},
    policies::PUBLISHED,
};

/// All pinned maps, held so that their pins can be put back.
pub struct Maps {
    held: Vec<(&'static str, MapData)>,
    pins: Pins,
}

fn names() -> impl Iterator<Item = &'static str> {
    name::PINNED.into_iter().chain([PUBLISHED])
}

/// Makes way for a whole new set where pins are missing: what is left of the old one goes. Gates that
/// are attached hold their own and go on enforcing with them until they are replaced. Returns their
/// tables of programs, which the kernel would empty if nobody else held them.
pub fn discard_incomplete(pins: &Pins) -> Result<Vec<MapData>> {
    let (there, missing): (Vec<_>, Vec<_>) = names().partition(|name| pins.map(name).exists());
    if there.is_empty() || missing.is_empty() {
        return Ok(Vec::new());
    }
    let kept = tables(pins);
    tracing::warn!("pins of maps are gone ({}): making all of them anew", missing.join(", "));
    for name in there {
        let pin = pins.map(name);
        fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
    }
    Ok(kept)
}

fn tables(pins: &Pins) -> Vec<MapData> {
    let open = |name| MapData::from_pin(pins.map(name)).ok();
    [name::TC_PROGRAMS, name::XDP_PROGRAMS].into_iter().filter_map(open).collect()
}

impl Maps {
    /// Holds the maps that are pinned.
    pub fn hold(pins: &Pins) -> Result<Self> {
        let hold = |name| {
            let pin = pins.map(name);
            let map = MapData::from_pin(&pin);
            Ok((name, map.with_context(|| format!("cannot open {}", pin.display()))?))
        };
        Ok(Self { held: names().map(hold).collect::<Result<_>>()?, pins: pins.clone() })
    }

    /// Puts pins back that somebody removed: whoever opens them next would make empty maps.
    pub fn restore(&self) -> Result<()> {
        for (name, map) in &self.held {
            let pin = self.pins.map(name);
            if pin.exists() {
                continue;
            }
            self.pins.create_directories()?;
            pins::pin(map.fd().as_fd(), &pin)?;
            tracing::warn!("{} was gone: pinned again", pin.display());
        }
        Ok(())
    }
}
