//! One QEMU process with a microVM in it.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{GuestConsole, GuestKernel, Initramfs, QmpClient, initramfs};
use policy_testbed::network::{NetworkNamespace, unique_name};

/// Emulation in software needs nothing of the machine it runs on, which may be virtual itself.
const QEMU_PROGRAM: &str = "qemu-system-x86_64";
/// Where `cargo xtask test` unpacks it if it is not on the path.
const UNPACKED_DIRECTORY: &str = "../../target/qemu";

/// What the guest's kernel is told. An emulated clock is too coarse for the kernel to measure on a
/// busy machine, so that it would wait for ever: it gets a frequency. A panic ends the machine.
const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 loglevel=4 panic=-1 reboot=t tsc_early_khz=2400000 no_timer_check";

/// A running guest; it ends on drop.
pub struct QemuProcess {
    child: Child,
    /// Its shell.
    pub console: GuestConsole,
    /// What drives it.
    pub monitor: QmpClient,
    _directory: TempDir,
}

impl QemuProcess {
    /// Starts a guest, and waits for its shell. It lives no longer than the thread that starts it.
    pub fn boot(hardware: &VmHardware<'_>, kernel: &GuestKernel, files: Initramfs) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&unique_name("machine")).tempdir()?;
        let at = directory.path();
        fs::write(at.join("initramfs"), files.finish()?)?;
        let mut command = hardware.command(at)?;
        command.arg("-kernel").arg(kernel.image()?).arg("-initrd").arg(at.join("initramfs"));
        command.args(["-append", KERNEL_COMMAND_LINE]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(at.join("stderr"))?);
        die_with_parent(&mut command);
        let mut child =
            command.spawn().context("starting QEMU, which `cargo xtask test` unpacks")?;
        let ready = wait_until_ready(&mut child, at);
        match ready {
            Ok((console, monitor)) => Ok(Self { child, console, monitor, _directory: directory }),
            Err(error) => {
                kill_and_wait(&mut child);
                let said = |name| fs::read_to_string(at.join(name)).unwrap_or_default();
                let (qemu, guest) = (said("stderr"), said("kernel"));
                Err(error.context(format!("booting a guest; QEMU says: {qemu}\nit says: {guest}")))
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// A machine as small as a microVM is: a line for its shell, a serial port on which its kernel says what
/// goes wrong, a monitor, and a network card if it has one.
#[derive(Default)]
pub struct VmHardware<'a> {
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub processors: u32,
    /// Its network card.
    pub card: Option<NetworkCard<'a>>,
}

/// A network card whose other end is a tap device.
pub struct NetworkCard<'a> {
    /// The namespace of the tap device.
    pub host: &'a NetworkNamespace,
    /// The tap device.
    pub tap: &'a str,
    /// The card's MAC address.
    pub mac: &'a str,
}

impl VmHardware<'_> {
    /// QEMU with it; what it leaves is in the directory `at`.
    fn command(&self, at: &Path) -> Result<Command> {
        let mut command = match &self.card {
            Some(card) => card.host.command(&qemu_path())?,
            None => Command::new(qemu_path()),
        };
        command.args(["-M", "microvm", "-accel", "tcg", "-cpu", "max"]);
        command.args(["-m", &self.memory.to_string(), "-smp", &self.processors.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-global", "virtio-mmio.force-legacy=false"]);
        command.arg("-serial").arg(format!("file:{}/kernel", at.display()));
        command.args(["-device", "virtio-serial-device", "-chardev", "stdio,id=shell"]);
        command.args(["-device", "virtserialport,chardev=shell,name=shell"]);
        if let Some(NetworkCard { tap, mac, .. }) = self.card {
            let netdev = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
            command.args(["-netdev", &netdev]);
            command.args(["-device", &format!("virtio-net-device,netdev=net,mac={mac}")]);
        }
        command.arg("-qmp").arg(format!("unix:{}/monitor,server=on,wait=off", at.display()));
        Ok(command)
    }
}

fn qemu_path() -> String {
    let unpacked =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(UNPACKED_DIRECTORY).join(QEMU_PROGRAM);
    match unpacked.to_str() {
        Some(path) if unpacked.is_file() => path.to_owned(),
        _ => QEMU_PROGRAM.to_owned(),
    }
}

/// A test that is killed leaves no machine behind.
fn die_with_parent(command: &mut Command) {
    let with_parent = || {
        // SAFETY: prctl with these arguments reads and writes no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor
    // locks.
    unsafe { command.pre_exec(with_parent) };
}

fn wait_until_ready(child: &mut Child, at: &Path) -> Result<(GuestConsole, QmpClient)> {
    let input = child.stdin.take().context("QEMU's stdin")?;
    let output = child.stdout.take().context("QEMU's stdout")?;
    let mut console = GuestConsole::new(input, output);
    let monitor = QmpClient::connect(&at.join("monitor"))?;
    console.read_until(initramfs::READY_MARKER)?;
    Ok((console, monitor))
}

fn kill_and_wait(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for QemuProcess {
    fn drop(&mut self) {
        kill_and_wait(&mut self.child);
    }
}
