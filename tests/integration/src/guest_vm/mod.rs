//! Sandboxes that are real: a microVM in QEMU with a Linux kernel of its own behind a tap device, as
//! on hosts of sandboxes. Its kernel makes the frames that cross the tap, with the checksums and the
//! segmentation that virtio leaves to the host, and its programs see what comes of them.
//!
//! [`VmSandbox`] is what tests use. Below it: [`QemuProcess`] runs a guest, [`GuestConsole`] speaks to its shell
//! and [`QmpClient`] to QEMU; `kernel` and `initramfs` are what it boots.

mod guest_connection;
mod guest_console;
mod guest_kernel;
mod initramfs;
mod qemu;
mod qmp;
mod vm_sandbox;

pub use guest_connection::GuestConnection;
pub use guest_console::{ConsoleOutput, GuestConsole};
pub use guest_kernel::{GuestKernel, collect_files, read_module};
pub use initramfs::Initramfs;
pub use qemu::{NetworkCard, QemuProcess, VmHardware};
pub use qmp::QmpClient;
pub use vm_sandbox::VmSandbox;
