//! Sandboxes in virtual machines: a microVM in QEMU with its own Linux kernel behind a tap device,
//! as on sandbox hosts. Its kernel creates the frames that cross the tap, and virtio leaves their
//! checksums and segmentation to the host. Tests observe the results in its programs.
//!
//! [`VmSandbox`] is the interface for tests. [`QemuProcess`] runs a guest, [`GuestConsole`]
//! connects to its shell and [`QmpClient`] to QEMU. The guest boots `guest_kernel` and `initramfs`.

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
