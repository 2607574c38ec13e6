//! Loads the programs that all sandboxes share and installs them in the program arrays that the
//! gates call through. Installing a program replaces the previous one for all sandboxes at once.

use std::{borrow::Cow, io, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{Program, ProgramError, ProgramFd, SchedClassifier, Xdp},
};
use aya_log::EbpfLogger;
use policy_common::bpf_names::{
    self, EARLY_DROP, FAST_DELIVERY, FAST_PATH, FROM_SANDBOX, GUARD_MARK, PROXY_REDIRECT, REJECT,
    SKB_LAYOUT, TABLE_WORD_MASK, TC_PROGRAMS, TO_SANDBOX, XDP_PROGRAMS, tail_call_index,
};

use super::context_cast::link_context_cast;
use crate::dataplane::{
    GuardMark,
    features::skb_layout,
    maps::{bpf_syscall, event_ring::ProgramLog, pin_directory::PinDirectory, pinned_maps},
    tables::table_memory,
};

static POLICY_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/policy.o"));

/// Loads the programs with the pinned maps and creates missing ones. The programs set `mark` on what
/// they let pass.
pub(crate) fn load_object(pins: &PinDirectory, mark: GuardMark) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for name in bpf_names::PINNED_MAPS {
        loader.map_pin_path(name, pins.map_path(name));
    }
    let skb = skb_layout::kernel_skb_access()?;
    loader.override_global(SKB_LAYOUT, &skb.layout, true);
    let mark = mark.get();
    loader.override_global(GUARD_MARK, &mark, true);
    table_memory::pin_table_memory(pins)?;
    let word_mask = u32::try_from(table_memory::table_memory_words() - 1)?;
    loader.override_global(TABLE_WORD_MASK, &word_mask, true);
    let object = skb.context_cast.map_or(Cow::Borrowed(POLICY_OBJECT), |function| {
        Cow::Owned(link_context_cast(POLICY_OBJECT, function))
    });
    loader.load(&object).context("cannot load policy.o")
}

/// Opens the log of the programs, which only report events that should never happen.
pub(crate) fn open_program_log(object: &mut Ebpf) -> Result<ProgramLog> {
    EbpfLogger::init(object).context("cannot open the programs' log")
}

/// Installs the programs in the program arrays.
pub(crate) fn install_programs(object: &mut Ebpf, pins: &PinDirectory) -> Result<()> {
    let mut tc = open_program_array(&pins.map_path(TC_PROGRAMS))?;
    let tc_programs = [
        (tail_call_index::REJECT, REJECT), // first: the next two programs call it
        (tail_call_index::PROXY_REDIRECT, PROXY_REDIRECT), // before from_sandbox, which calls it
        (tail_call_index::FROM_SANDBOX, FROM_SANDBOX), // before fast_path, which calls it
        (tail_call_index::FAST_PATH, FAST_PATH),
        (tail_call_index::TO_SANDBOX, TO_SANDBOX), // before fast_delivery, which calls it
        (tail_call_index::FAST_DELIVERY, FAST_DELIVERY),
    ];
    for (index, name) in tc_programs {
        let program: &mut SchedClassifier = program_by_name(object, name)?.try_into()?;
        bpf_syscall::retry_interrupted(|| program.load(), verifier_error)
            .with_context(|| format!("the kernel refuses {name}"))?;
        set_program(&mut tc, index, name, program.fd()?)?;
    }
    let program: &mut Xdp = program_by_name(object, EARLY_DROP)?.try_into()?;
    bpf_syscall::retry_interrupted(|| program.load(), verifier_error)
        .with_context(|| format!("the kernel refuses {EARLY_DROP}"))?;
    let mut xdp = open_program_array(&pins.map_path(XDP_PROGRAMS))?;
    set_program(&mut xdp, tail_call_index::EARLY_DROP, EARLY_DROP, program.fd()?)
}

fn verifier_error(error: &ProgramError) -> Option<&io::Error> {
    match error {
        ProgramError::LoadError { io_error, .. } => Some(io_error),
        _ => None,
    }
}

fn program_by_name<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    object.program_mut(name).with_context(|| format!("policy.o has no program {name}"))
}

fn open_program_array(pin: &Path) -> Result<ProgramArray<MapData>> {
    Ok(pinned_maps::open_pinned_map(pin)?.try_into()?)
}

fn set_program(
    programs: &mut ProgramArray<MapData>,
    index: u32,
    name: &str,
    program: &ProgramFd,
) -> Result<()> {
    programs.set(index, program, 0).with_context(|| format!("cannot install {name}"))
}
