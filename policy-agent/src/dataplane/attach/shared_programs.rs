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
use policy_common::{
    bpf_names::{
        self, EARLY_DROP, FAST_DELIVERY, FAST_PATH, FROM_SANDBOX, GUARD_MARK, PROXY_REDIRECT,
        REJECT, SKB_LAYOUT, TABLE_WORD_MASK, TC_PROGRAMS, TO_SANDBOX, XDP_PROGRAMS,
        tail_call_index,
    },
    skb::SkbLayout,
};

use super::{context_cast::link_context_cast, installed_programs::ProgramRecord};
use crate::dataplane::{
    GuardMark,
    features::skb_layout,
    maps::{bpf_syscall, event_ring::ProgramLog, pin_directory::PinDirectory, pinned_maps},
    tables::table_memory,
};

static POLICY_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/policy.o"));

/// The programs, before they are loaded.
pub(crate) struct SharedPrograms {
    pins: PinDirectory,
    object: Cow<'static, [u8]>,
    skb_layout: SkbLayout,
    mark: u32,
    word_mask: u32,
    record: ProgramRecord,
}

impl SharedPrograms {
    /// Programs that set `mark` on what they let pass.
    pub(crate) fn new(pins: &PinDirectory, mark: GuardMark) -> Result<Self> {
        let skb = skb_layout::kernel_skb_access()?;
        let object = skb.context_cast.map_or(Cow::Borrowed(POLICY_OBJECT), |function| {
            Cow::Owned(link_context_cast(POLICY_OBJECT, function))
        });
        let (skb_layout, mark) = (skb.layout, mark.get());
        let word_mask = u32::try_from(table_memory::table_memory_words() - 1)?;
        let globals = format!("{skb_layout:?} {mark} {word_mask}");
        let record = ProgramRecord::new(pins, &[&object, globals.as_bytes()]);
        Ok(Self { pins: pins.clone(), object, skb_layout, mark, word_mask, record })
    }

    /// The log of the programs, if they are installed already, and all maps are pinned.
    pub(crate) fn find_installed(&self, has_all_maps: bool) -> Option<ProgramLog> {
        let program = has_all_maps.then(|| self.record.find_installed().ok().flatten())??;
        EbpfLogger::init_from_id(program).ok()
    }

    /// Loads the object with the pinned maps and creates missing ones.
    pub(crate) fn load_object(&self) -> Result<Ebpf> {
        let mut loader = EbpfLoader::new();
        for name in bpf_names::PINNED_MAPS {
            loader.map_pin_path(name, self.pins.map_path(name));
        }
        loader.override_global(SKB_LAYOUT, &self.skb_layout, true);
        loader.override_global(GUARD_MARK, &self.mark, true);
        loader.override_global(TABLE_WORD_MASK, &self.word_mask, true);
        table_memory::pin_table_memory(&self.pins)?;
        loader.load(&self.object).context("cannot load policy.o")
    }

    /// Loads the programs and installs them in the program arrays. Returns their log, which only
    /// reports events that should never happen.
    pub(crate) fn install(&self, object: &mut Ebpf) -> Result<ProgramLog> {
        let log = EbpfLogger::init(object).context("cannot open the programs' log")?;
        self.record.clear()?;
        install_programs(object, &self.pins)?;
        self.record.write()?;
        Ok(log)
    }
}

fn install_programs(object: &mut Ebpf, pins: &PinDirectory) -> Result<()> {
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
