//! The gates of a slot: made once, pinned, and used for every sandbox that gets the slot.
//!
//! ```text
//! <bpffs>/v<ABI>/gates/7/from   also from-spare, to, to-spare, xdp
//! ```
//!
//! Gates are not freed while the agent runs, because the kernel can deadlock when many programs are
//! freed at once (Linux up to at least 6.18).

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, SchedClassifier, TcAttachType, Xdp},
};
use aya_obj::programs::XdpAttachType;
use policy_common::bpf_names::{TC_PROGRAMS, XDP_PROGRAMS};

use super::{FROM_PIN, TO_PIN, XDP_PIN, gate_loader::GateLoader};
use crate::dataplane::{Slot, maps::pin_directory::PinDirectory};

/// Which of two equal programs. The kernel attaches a program only once to a hook, and a gate behind
/// another program stays attached until there is one in front.
#[derive(Clone, Copy)]
pub(crate) enum GateCopy {
    /// The one that is usually attached.
    Usual,
    /// The one that takes its place.
    Spare,
}

/// Opens the pinned gates, and makes those that are missing.
pub(crate) struct SlotGates {
    gate_loader: GateLoader,
    pin_directory: PinDirectory,
}

impl SlotGates {
    pub(crate) fn new(pins: PinDirectory) -> Self {
        Self { gate_loader: GateLoader::new(&pins), pin_directory: pins }
    }

    pub(crate) fn gate_loader(&self) -> &GateLoader {
        &self.gate_loader
    }

    /// The gate at a TC hook.
    pub(crate) fn tc_gate(
        &self,
        slot: Slot,
        hook: TcAttachType,
        copy: GateCopy,
    ) -> Result<SchedClassifier> {
        let pin = self.gate_pin(slot, tc_pin_name(hook, copy), TC_PROGRAMS)?;
        if !pin.exists() {
            self.make_tc_gates(slot, copy)?;
        }
        SchedClassifier::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))
    }

    /// Makes the gates of both hooks that are missing. They share an object, because parsing it and
    /// loading its types takes longer than loading the gates.
    fn make_tc_gates(&self, slot: Slot, copy: GateCopy) -> Result<()> {
        let mut gates = self.gate_loader.load_gates(slot)?;
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            let pin = self.gate_pin(slot, tc_pin_name(hook, copy), TC_PROGRAMS)?;
            if pin.exists() {
                continue;
            }
            match hook {
                TcAttachType::Ingress => gates.load_from_sandbox()?.pin(&pin)?,
                _ => gates.load_to_sandbox()?.pin(&pin)?,
            }
        }
        Ok(())
    }

    /// The gate at XDP.
    pub(crate) fn xdp(&self, slot: Slot) -> Result<Xdp> {
        let pin = self.gate_pin(slot, XDP_PIN, XDP_PROGRAMS)?;
        if !pin.exists() {
            self.gate_loader.load_gates(slot)?.load_xdp()?.pin(&pin)?;
        }
        Xdp::from_pin(&pin, XdpAttachType::Interface)
            .with_context(|| format!("cannot open {}", pin.display()))
    }

    /// The pin of a gate. Removes a gate that calls through an array that is no longer pinned.
    fn gate_pin(&self, slot: Slot, name: &str, program_array: &str) -> Result<PathBuf> {
        let pin = self.pin_directory.gate_path(slot, name)?;
        if let Ok(gate) = ProgramInfo::from_pin(&pin) {
            let programs = MapInfo::from_pin(self.pin_directory.map_path(program_array))?.id();
            if !uses_map(&gate, programs) {
                std::fs::remove_file(&pin)
                    .with_context(|| format!("cannot remove {}", pin.display()))?;
            }
        }
        Ok(pin)
    }
}

const fn tc_pin_name(hook: TcAttachType, copy: GateCopy) -> &'static str {
    match (hook, copy) {
        (TcAttachType::Ingress, GateCopy::Usual) => FROM_PIN,
        (TcAttachType::Ingress, GateCopy::Spare) => "from-spare",
        (_, GateCopy::Usual) => TO_PIN,
        (_, GateCopy::Spare) => "to-spare",
    }
}

/// Whether a program uses a map. If the pin of a program array was removed while no agent ran, the
/// gate still enforces, but its programs can no longer be replaced.
pub(crate) fn uses_map(program: &ProgramInfo, map: u32) -> bool {
    program.map_ids().is_ok_and(|maps| maps.is_some_and(|maps| maps.contains(&map)))
}
