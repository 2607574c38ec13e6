//! The programs that all sandboxes share: loaded, and put into the tables that the gates call
//! through. Putting a new one there replaces the old one for every sandbox at once.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{Program, ProgramError, ProgramFd, SchedClassifier, Xdp},
};
use aya_log::EbpfLogger;
use policy_common::name::{
    self, EARLY_DROP, FROM_SANDBOX, HAND_OVER, HUGE_TABLES, REJECT, SKB_LAYOUT, TC_PROGRAMS,
    TO_SANDBOX, XDP_PROGRAMS, tail,
};

use super::{huge, pins::Pins, skb};

/// How often a program is tried to be loaded.
const ATTEMPTS: u32 = 5;

/// Hands what the programs log to the agent's own log.
pub type ProgramLog = EbpfLogger<&'static dyn log::Log>;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/policy.o"));

/// Loads the programs with the pinned maps, making those that are missing.
pub fn load(pins: &Pins) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for name in name::PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    let layout = skb::layout()?;
    loader.override_global(SKB_LAYOUT, &layout, true);
    huge::stand_in(pins)?;
    loader.override_global(HUGE_TABLES, &*huge::SUPPORTED, true);
    loader.load(OBJECT).context("cannot load policy.o")
}

/// What the programs log: only what should never happen.
pub fn log(object: &mut Ebpf) -> Result<ProgramLog> {
    EbpfLogger::init(object).context("cannot open the programs' log")
}

/// Puts the programs into the tables.
pub fn install(object: &mut Ebpf, pins: &Pins) -> Result<()> {
    let mut tc = table(&pins.map(TC_PROGRAMS))?;
    let tc_programs = [
        (tail::REJECT, REJECT),       // first: the next two call it
        (tail::HAND_OVER, HAND_OVER), // before from_sandbox, which calls it
        (tail::FROM_SANDBOX, FROM_SANDBOX),
        (tail::TO_SANDBOX, TO_SANDBOX),
    ];
    for (index, name) in tc_programs {
        let program: &mut SchedClassifier = program(object, name)?.try_into()?;
        patiently(|| program.load()).with_context(|| format!("the kernel refuses {name}"))?;
        put(&mut tc, index, name, program.fd()?)?;
    }
    let program: &mut Xdp = program(object, EARLY_DROP)?.try_into()?;
    patiently(|| program.load()).with_context(|| format!("the kernel refuses {EARLY_DROP}"))?;
    let mut xdp = table(&pins.map(XDP_PROGRAMS))?;
    put(&mut xdp, tail::EARLY_DROP, EARLY_DROP, program.fd()?)
}

/// Loads a program. The verifier gives up when a signal comes in, whatever it is about: EAGAIN.
fn patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    for _ in 1..ATTEMPTS {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            done => return done,
        }
    }
    load()
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    object.program_mut(name).with_context(|| format!("policy.o has no program {name}"))
}

fn table(pin: &Path) -> Result<ProgramArray<MapData>> {
    let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    Ok(aya::maps::Map::from_map_data(map)?.try_into()?)
}

fn put(
    table: &mut ProgramArray<MapData>,
    index: u32,
    name: &str,
    program: &ProgramFd,
) -> Result<()> {
    table.set(index, program, 0).with_context(|| format!("cannot install {name}"))
}
