//! A foreign program at an interface's hook, attached directly through the system call, without an
//! object file and without code of the agent.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use policy_testbed::testbed::{OrFail as _, TestSandbox};

// From `linux/bpf.h`.
const BPF_PROG_LOAD: c_long = 5;
const BPF_LINK_CREATE: c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;

/// `r0 = 0; exit`: TCX_PASS, so that no later program runs.
static PASS_INSTRUCTIONS: [u64; 2] = [0xb7, 0x95];

/// The part of `union bpf_attr` for loading a program.
#[repr(C)]
struct ProgLoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    unused: [u32; 6],
}

/// The part of `union bpf_attr` for a tcx link.
#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    interface: u32,
    hook: u32,
    flags: u32,
    relative: u64,
    revision: u64,
}

/// Passes everything from a sandbox, so that later programs do not run. Detached on drop.
pub(crate) struct PassAllProgram {
    _link: OwnedFd,
}

impl PassAllProgram {
    /// Attaches before all attached programs.
    #[track_caller]
    pub(crate) fn attach_first(sandbox: &TestSandbox) -> Self {
        Self::attach_with_flags(sandbox, BPF_F_BEFORE)
    }

    /// Attaches after all attached programs.
    #[track_caller]
    pub(crate) fn attach_last(sandbox: &TestSandbox) -> Self {
        Self::attach_with_flags(sandbox, BPF_F_AFTER)
    }

    #[track_caller]
    fn attach_with_flags(sandbox: &TestSandbox, flags: u32) -> Self {
        let host = &sandbox.testbed.network.host;
        let interface = host.ifindex(&sandbox.interface).or_fail("an index");
        let mut load = ProgLoadAttr {
            kind: BPF_PROG_TYPE_SCHED_CLS,
            count: 2,
            instructions: PASS_INSTRUCTIONS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            unused: [0; 6],
        };
        let program = bpf_syscall(BPF_PROG_LOAD, &mut load).or_fail("loading a program");
        let program = program.as_raw_fd().unsigned_abs();
        let hook = BPF_TCX_INGRESS;
        let mut link = LinkCreateAttr { program, interface, hook, flags, relative: 0, revision: 0 };
        let _inside = host.enter().or_fail("entering the host");
        Self { _link: bpf_syscall(BPF_LINK_CREATE, &mut link).or_fail("attaching it") }
    }
}

fn bpf_syscall<A>(command: c_long, attribute: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is a prefix of `union bpf_attr` with the given size, and its pointers
    // refer to constants.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>())
    };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just created the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
