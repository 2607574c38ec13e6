//! Loads gates: the small programs, one set per slot, that set the slot and call the programs shared
//! by all sandboxes.

use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, Xdp},
};
use policy_common::{
    bpf_names::{
        GATE_FROM, GATE_SLOT_GLOBAL, GATE_TO, GATE_XDP, TC_PROGRAMS, XDP_PROGRAMS, XDP_SLOT,
    },
    endpoint::MAX_SANDBOXES,
};

use crate::dataplane::{Slot, maps::pin_directory::PinDirectory};

static GATE_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gate.o"));

/// All slot numbers as statics, because the loader borrows the value of a global.
static SLOT_NUMBERS: [u32; MAX_SANDBOXES as usize] = {
    let mut numbers = [0; MAX_SANDBOXES as usize];
    let mut slot = 0;
    while slot < MAX_SANDBOXES {
        numbers[slot as usize] = slot;
        slot += 1;
    }
    numbers
};

/// Loads gates. The loader is reused, because creating one parses the kernel's BTF.
pub(crate) struct GateLoader {
    loader: Mutex<EbpfLoader<'static>>,
}

/// The gates of one slot, not yet loaded into the kernel.
pub struct UnpinnedGates {
    object: Ebpf,
}

impl GateLoader {
    /// Creates a loader whose gates call through the program arrays pinned in `pins`.
    pub(crate) fn new(pins: &PinDirectory) -> Self {
        let mut loader = EbpfLoader::new();
        // Gates use no kernel types. Parsed BTF would occupy 17 MiB.
        loader.btf(None);
        for name in [TC_PROGRAMS, XDP_PROGRAMS, XDP_SLOT] {
            loader.map_pin_path(name, pins.map_path(name));
        }
        Self { loader: Mutex::new(loader) }
    }

    /// Opens the gates of a slot.
    pub(crate) fn load_gates(&self, slot: Slot) -> Result<UnpinnedGates> {
        let number = &SLOT_NUMBERS[slot.get() as usize];
        let mut loader = self.loader.lock().map_err(|_| anyhow!("the loader is poisoned"))?;
        let object = loader.override_global(GATE_SLOT_GLOBAL, number, true).load(GATE_OBJECT);
        Ok(UnpinnedGates { object: object.context("cannot load the gate")? })
    }
}

impl UnpinnedGates {
    /// Loads the gate at TC ingress, for packets sent by the sandbox.
    pub fn load_from_sandbox(&mut self) -> Result<&mut SchedClassifier> {
        self.load_classifier(GATE_FROM)
    }

    /// Loads the gate at TC egress, for packets sent to the sandbox.
    pub fn load_to_sandbox(&mut self) -> Result<&mut SchedClassifier> {
        self.load_classifier(GATE_TO)
    }

    /// Loads the gate at XDP.
    pub fn load_xdp(&mut self) -> Result<&mut Xdp> {
        let program: &mut Xdp = self.program_by_name(GATE_XDP)?.try_into()?;
        program.load().context("cannot load the XDP gate")?;
        Ok(program)
    }

    fn load_classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program: &mut SchedClassifier = self.program_by_name(name)?.try_into()?;
        program.load().with_context(|| format!("cannot load {name}"))?;
        Ok(program)
    }

    fn program_by_name(&mut self, name: &str) -> Result<&mut aya::programs::Program> {
        self.object.program_mut(name).with_context(|| format!("gate.o has no program {name}"))
    }
}
