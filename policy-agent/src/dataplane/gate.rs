//! Gates: the small programs, one pair per sandbox interface, that name its slot and call the
//! programs that all sandboxes share.

use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, Xdp},
};
use policy_common::{
    name::{GATE_FROM, GATE_SLOT, GATE_TO, GATE_XDP, TC_PROGRAMS, XDP_PROGRAMS, XDP_SLOT},
    sandbox::MAX_SANDBOXES,
};

use super::{Slot, pins::Pins};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gate.o"));

/// Every slot's number at a fixed place: the loader borrows the value of a global.
static NUMBERS: [u32; MAX_SANDBOXES as usize] = {
    let mut numbers = [0; MAX_SANDBOXES as usize];
    let mut slot = 0;
    while slot < MAX_SANDBOXES {
        numbers[slot as usize] = slot;
        slot += 1;
    }
    numbers
};

/// Loads gates. The loader is kept: making one parses the kernel's BTF.
pub struct Gates {
    loader: Mutex<EbpfLoader<'static>>,
}

/// The gates of one slot, not yet loaded into the kernel.
pub struct Gate {
    object: Ebpf,
}

impl Gates {
    /// A loader whose gates call through the tables pinned in `pins`.
    pub fn new(pins: &Pins) -> Self {
        let mut loader = EbpfLoader::new();
        // The gates look at none of the kernel's types, which would stay in memory: 17 MiB.
        loader.btf(None);
        for name in [TC_PROGRAMS, XDP_PROGRAMS, XDP_SLOT] {
            loader.map_pin_path(name, pins.map(name));
        }
        Self { loader: Mutex::new(loader) }
    }

    /// The gates of a slot.
    pub fn open(&self, slot: Slot) -> Result<Gate> {
        let number = &NUMBERS[slot.get() as usize];
        let mut loader = self.loader.lock().map_err(|_| anyhow!("the loader is poisoned"))?;
        let object = loader.override_global(GATE_SLOT, number, true).load(OBJECT);
        Ok(Gate { object: object.context("cannot load the gate")? })
    }
}

impl Gate {
    /// The gate at TC ingress, loaded: what the sandbox sends.
    pub fn from_sandbox(&mut self) -> Result<&mut SchedClassifier> {
        self.classifier(GATE_FROM)
    }

    /// The gate at TC egress, loaded: what the sandbox receives.
    pub fn to_sandbox(&mut self) -> Result<&mut SchedClassifier> {
        self.classifier(GATE_TO)
    }

    /// The gate at XDP, loaded.
    pub fn xdp(&mut self) -> Result<&mut Xdp> {
        let program: &mut Xdp = self.program(GATE_XDP)?.try_into()?;
        program.load().context("cannot load the XDP gate")?;
        Ok(program)
    }

    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program: &mut SchedClassifier = self.program(name)?.try_into()?;
        program.load().with_context(|| format!("cannot load {name}"))?;
        Ok(program)
    }

    fn program(&mut self, name: &str) -> Result<&mut aya::programs::Program> {
        self.object.program_mut(name).with_context(|| format!("gate.o has no program {name}"))
    }
}
