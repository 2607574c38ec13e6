//! Calls of bpf(2) for programs of netfilter, which aya does not support (Linux 6.4).

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::{
    bpf_attach_type::BPF_NETFILTER, bpf_insn, bpf_prog_type::BPF_PROG_TYPE_NETFILTER,
};

use crate::dataplane::maps::bpf_syscall;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const NF_INET_PRE_ROUTING: u32 = 0;

/// The kernel lets only programs with a licence compatible with its own read its structures.
const PROGRAM_LICENSE: &[u8] = b"Dual MIT/GPL\0";
const PROGRAM_NAME: [u8; 16] = *b"policy_guard\0\0\0\0";
const VERIFIER_LOG_BYTES: usize = 64 * 1024;

/// The first fields of the anonymous struct of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgramLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `struct { … } link_create` of `union bpf_attr`, with its member `netfilter`.
#[repr(C)]
struct NetfilterLinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    protocol_family: u32,
    hook_number: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// Loads a program.
pub(super) fn load_program(instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    bpf_syscall::retry_interrupted(|| try_load(instructions, &mut []), |error| Some(error))
}

/// The verifier's log about a program that it refuses.
pub(super) fn verifier_log(instructions: &[bpf_insn]) -> String {
    let mut log = vec![0; VERIFIER_LOG_BYTES];
    let _refused = try_load(instructions, &mut log);
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

fn try_load(instructions: &[bpf_insn], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut program = ProgramLoadAttr {
        prog_type: BPF_PROG_TYPE_NETFILTER as u32,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: PROGRAM_LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: PROGRAM_NAME,
        prog_ifindex: 0,
        expected_attach_type: BPF_NETFILTER as u32,
    };
    bpf_syscall::call_for_fd(BPF_PROG_LOAD, &mut program)
}

/// Attaches a program at prerouting in the calling thread's network namespace, which the link keeps
/// alive.
pub(super) fn attach_at_prerouting(
    program: BorrowedFd<'_>,
    protocol_family: u32,
    priority: i32,
) -> io::Result<OwnedFd> {
    let mut link = NetfilterLinkAttr {
        prog_fd: bpf_syscall::raw_fd(program.as_fd()),
        target_fd: 0,
        attach_type: BPF_NETFILTER as u32,
        flags: 0,
        protocol_family,
        hook_number: NF_INET_PRE_ROUTING,
        priority,
        netfilter_flags: 0,
    };
    bpf_syscall::call_for_fd(BPF_LINK_CREATE, &mut link)
}
