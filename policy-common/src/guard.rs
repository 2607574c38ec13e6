//! The guard: a hook behind TC that drops what a sandbox's interface hands to the IP stack without
//! the mark that [`fast_path`](crate::bpf_names::FAST_PATH) and
//! [`from_sandbox`](crate::bpf_names::FROM_SANDBOX) set on every packet that they let pass. Packets for the egress proxy carry [`REDIRECT_MARK`](crate::redirect::REDIRECT_MARK)
//! instead.

use crate::impl_pod;

/// Length of an interface's name, including the final zero (`IFNAMSIZ` of linux/if.h).
pub const INTERFACE_NAME_LENGTH: usize = 16;

/// Key of the guard's map: an interface's name, padded with zeros.
pub type GuardedInterfaceKey = [u8; INTERFACE_NAME_LENGTH];

/// Value of the guard's map. The guard counts what it drops; the agent writes the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuardedInterface {
    /// Packets that the guard dropped. A GSO super-packet counts as one.
    pub packets: u64,
    /// Bytes of these, without Ethernet headers.
    pub bytes: u64,
    /// The slot that the interface was last attached to.
    pub slot: u32,
    /// Zero.
    pub padding: u32,
}

impl_pod!(GuardedInterface, 24);
