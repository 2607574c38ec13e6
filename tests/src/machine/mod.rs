//! Sandboxes that are real: a microVM in QEMU with a Linux kernel of its own behind a tap device, as
//! on hosts of sandboxes. Its kernel makes the frames that cross the tap, with the checksums and the
//! segmentation that virtio leaves to the host, and its programs see what comes of them.
//!
//! [`Machine`] is what tests use. Below it: [`Qemu`] runs a guest, [`Console`] speaks to its shell
//! and [`Monitor`] to QEMU; `kernel` and `initramfs` are what it boots.

mod connection;
mod console;
mod initramfs;
mod kernel;
mod monitor;
mod qemu;
mod sandbox;

pub use connection::Connection;
pub use console::{Console, Output};
pub use initramfs::Initramfs;
pub use kernel::{Kernel, module, walk};
pub use monitor::Monitor;
pub use qemu::{Card, Hardware, Qemu};
pub use sandbox::Machine;
