//! The guard as a BPF program of netfilter. Rust's BPF libraries have no such programs, and this one
//! is so short that its instructions are written here, with the offsets of this kernel's structures.
//!
//! ```text
//! if skb->mark has the guard's bit, or is that of packets for the egress proxy: accept
//! if state->in->name is in the map: count the packet, and drop it
//! accept
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow};
use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_ATOMIC, BPF_B, BPF_CALL, BPF_DW, BPF_EXIT, BPF_IMM, BPF_JEQ, BPF_JMP,
    BPF_JMP32, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MEM, BPF_MOV, BPF_PSEUDO_MAP_FD, BPF_ST,
    BPF_STX, BPF_W, BPF_X, bpf_func_id::BPF_FUNC_map_lookup_elem, bpf_insn,
};
use policy_common::{guard::INTERFACE_NAME_LENGTH, redirect::REDIRECT_MARK};

use super::netfilter_syscall;
use crate::dataplane::{
    features::kernel_types::{KernelStruct, KernelTypes},
    maps::bpf_syscall,
};

/// The version of the program. Increment it with every change, so that an agent replaces the links
/// of an older one.
pub(super) const GUARD_PROGRAM_VERSION: u32 = 1;

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
/// Offsets in `struct bpf_nf_ctx`, which every kernel with such programs has.
const CONTEXT_STATE: i16 = 0;
const CONTEXT_SKB: i16 = 8;
/// Offset of the name on the stack.
#[expect(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "it is 16")]
const NAME_ON_STACK: i16 = -(INTERFACE_NAME_LENGTH as i16);
/// Offsets in [`GuardedInterface`](policy_common::guard::GuardedInterface).
const VALUE_PACKETS: i16 = 0;
const VALUE_BYTES: i16 = 8;

// Registers. The kernel preserves R6 to R9 across calls.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const SKB: u8 = 7;
const DEVICE: u8 = 8;
const STACK: u8 = 10;

/// Offsets in bytes.
struct NetfilterLayout {
    skb_mark: i16,
    skb_length: i16,
    state_in: i16,
    device_name: i16,
}

/// Loads the guard with its map.
pub(super) fn load_guard(mark: u32, map: BorrowedFd<'_>) -> Result<OwnedFd> {
    let program = assemble_guard(&NetfilterLayout::of_running_kernel()?, mark, map);
    netfilter_syscall::load_program(&program).map_err(|error| {
        let log = netfilter_syscall::verifier_log(&program);
        let end = log.lines().rev().take(3).collect::<Vec<_>>().join("; ");
        anyhow!("the kernel refuses the guard: {error}: {end}")
    })
}

/// Loads a program that accepts everything, to see whether the kernel has such programs.
pub(crate) fn load_empty_program() -> std::io::Result<OwnedFd> {
    netfilter_syscall::load_program(&[move_immediate(R0, NF_ACCEPT), exit()])
}

impl NetfilterLayout {
    fn of_running_kernel() -> Result<Self> {
        let types = KernelTypes::of_running_kernel()?;
        let skb = types.structure("sk_buff")?;
        let offset = |structure: &KernelStruct<'_>, field| -> Result<i16> {
            i16::try_from(structure.byte_offset(field)?).context("a structure is too large")
        };
        Ok(Self {
            skb_mark: offset(&skb, "mark")?,
            skb_length: offset(&skb, "len")?,
            state_in: offset(&types.structure("nf_hook_state")?, "in")?,
            device_name: offset(&types.structure("net_device")?, "name")?,
        })
    }
}

fn assemble_guard(layout: &NetfilterLayout, mark: u32, map: BorrowedFd<'_>) -> Vec<bpf_insn> {
    let mut program = JumpAssembler::default();
    program.add(load(BPF_DW, SKB, R1, CONTEXT_SKB));
    program.add(load(BPF_DW, DEVICE, R1, CONTEXT_STATE));
    program.add(load(BPF_W, R1, SKB, layout.skb_mark));
    program.jump(BPF_JMP32 | BPF_JSET, R1, mark.cast_signed(), JumpTarget::Accept);
    program.jump(BPF_JMP32 | BPF_JEQ, R1, REDIRECT_MARK.cast_signed(), JumpTarget::Accept);
    program.add(load(BPF_DW, DEVICE, DEVICE, layout.state_in));
    copy_name(&mut program, layout.device_name);
    program.place(JumpTarget::Lookup);
    program.lookup_name(map);
    program.jump(BPF_JMP | BPF_JEQ, R0, 0, JumpTarget::Accept);
    program.add(move_immediate(R1, 1));
    program.add(atomic_add(R0, R1, VALUE_PACKETS));
    program.add(load(BPF_W, R1, SKB, layout.skb_length));
    program.add(atomic_add(R0, R1, VALUE_BYTES));
    program.add(move_immediate(R0, NF_DROP));
    program.add(exit());
    program.place(JumpTarget::Accept);
    program.add(move_immediate(R0, NF_ACCEPT));
    program.add(exit());
    program.finish()
}

/// Copies the device's name to the stack, byte by byte up to its end: a device that was renamed may
/// have the rest of a longer name behind it.
fn copy_name(program: &mut JumpAssembler, device_name: i16) {
    program.add(store_zero(NAME_ON_STACK));
    program.add(store_zero(NAME_ON_STACK + 8));
    for index in 0..-NAME_ON_STACK - 1 {
        program.add(load(BPF_B, R1, DEVICE, device_name + index));
        program.jump(BPF_JMP | BPF_JEQ, R1, 0, JumpTarget::Lookup);
        program.add(insn(BPF_STX | BPF_MEM | BPF_B, STACK, R1, NAME_ON_STACK + index, 0));
    }
}

/// Where a jump leads. All jumps lead forward.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JumpTarget {
    Lookup,
    Accept,
}

/// Collects instructions and fills in the distances of jumps.
#[derive(Default)]
struct JumpAssembler {
    instructions: Vec<bpf_insn>,
    open_jumps: Vec<(usize, JumpTarget)>,
}

impl JumpAssembler {
    fn add(&mut self, instruction: bpf_insn) {
        self.instructions.push(instruction);
    }

    fn jump(&mut self, operation: u32, register: u8, operand: i32, target: JumpTarget) {
        self.open_jumps.push((self.instructions.len(), target));
        self.add(insn(operation | BPF_K, register, 0, 0, operand));
    }

    /// Makes the jumps to this target lead here.
    fn place(&mut self, target: JumpTarget) {
        let here = self.instructions.len();
        for (from, _) in self.open_jumps.extract_if(.., |(_, to)| *to == target) {
            let distance = i16::try_from(here - from - 1).unwrap_or(i16::MAX);
            self.instructions[from].off = distance;
        }
    }

    /// Looks up the name on the stack: a pointer to the value, or 0, is then in R0.
    fn lookup_name(&mut self, map: BorrowedFd<'_>) {
        let map = bpf_syscall::raw_fd(map.as_fd()).cast_signed();
        let is_map = u8::try_from(BPF_PSEUDO_MAP_FD).unwrap_or_default();
        self.add(insn(BPF_LD | BPF_DW | BPF_IMM, R1, is_map, 0, map));
        self.add(insn(0, 0, 0, 0, 0)); // the upper half of the 64-bit operand
        self.add(insn(BPF_ALU64 | BPF_MOV | BPF_X, R2, STACK, 0, 0));
        self.add(insn(BPF_ALU64 | BPF_ADD | BPF_K, R2, 0, 0, NAME_ON_STACK.into()));
        let function = (BPF_FUNC_map_lookup_elem as u32).cast_signed();
        self.add(insn(BPF_JMP | BPF_CALL, 0, 0, 0, function));
    }

    fn finish(self) -> Vec<bpf_insn> {
        self.instructions
    }
}

fn load(size: u32, to: u8, from: u8, offset: i16) -> bpf_insn {
    insn(BPF_LDX | BPF_MEM | size, to, from, offset, 0)
}

fn store_zero(offset: i16) -> bpf_insn {
    insn(BPF_ST | BPF_MEM | BPF_DW, STACK, 0, offset, 0)
}

fn atomic_add(to: u8, value: u8, offset: i16) -> bpf_insn {
    insn(BPF_STX | BPF_ATOMIC | BPF_DW, to, value, offset, BPF_ADD.cast_signed())
}

fn move_immediate(to: u8, value: i32) -> bpf_insn {
    insn(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value)
}

fn exit() -> bpf_insn {
    insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "operation codes have 8 bits")]
fn insn(operation: u32, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    let (code, registers) = (operation as u8, bpf_insn::new_bitfield_1(to, from));
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off, imm }
}
