//! Code that the test binaries share beyond [`policy_testbed`].
//!
//! - [`program_runner`]: runs the kernel programs on one frame at a time.
//! - [`oracle_input`]: the same configuration for the agent's compiler and for the oracle.
//! - [`random`]: random policies and packets.
//! - [`guest_vm`]: sandboxes that are virtual machines.
//! - [`kernel_matrix`]: runs the test binaries in virtual machines with other kernels.

pub mod guest_vm;
pub mod kernel_matrix;
pub mod oracle_input;
pub mod program_runner;
pub mod random;
