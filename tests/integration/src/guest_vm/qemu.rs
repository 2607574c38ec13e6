//! A QEMU process with a microVM.

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
use policy_testbed::network::{NetworkNamespace, unique_directory};

/// Software emulation has no requirements on its host, which may itself be virtual.
const QEMU_PROGRAM: &str = "qemu-system-x86_64";
/// The directory in which `cargo xtask test` unpacks QEMU if it is not on the path.
const UNPACKED_DIRECTORY: &str = "../../target/qemu";

/// The kernel command line. On a busy machine, an emulated clock is too coarse for the kernel's
/// calibration, which would never end, so the frequency is given. A panic ends the machine.
const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 loglevel=4 panic=-1 reboot=t tsc_early_khz=2400000 no_timer_check";

/// A running guest. It ends on drop.
pub struct QemuProcess {
    child: Child,
    /// The guest's shell.
    pub console: GuestConsole,
    /// The connection to QEMU's monitor.
    pub monitor: QmpClient,
    _directory: TempDir,
}

impl QemuProcess {
    /// Starts a guest and waits for its shell. The guest is killed when the calling thread ends.
    pub fn boot(hardware: &VmHardware<'_>, kernel: &GuestKernel, files: Initramfs) -> Result<Self> {
        let directory = unique_directory("machine")?;
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

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Hardware as small as a microVM's: a console for the shell, a serial port for the kernel's
/// messages, a monitor, and optionally a network card.
#[derive(Default)]
pub struct VmHardware<'a> {
    /// Memory in MiB.
    pub memory: u32,
    /// The number of CPUs.
    pub processors: u32,
    /// The network card.
    pub card: Option<NetworkCard<'a>>,
}

/// A network card whose other end is a tap device.
pub struct NetworkCard<'a> {
    /// The namespace of the tap device.
    pub host: &'a NetworkNamespace,
    /// The name of the tap device.
    pub tap: &'a str,
    /// The card's MAC address.
    pub mac: &'a str,
}

impl VmHardware<'_> {
    /// The QEMU command. QEMU writes its files to the directory `at`.
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

/// Kills the machine if the test is killed.
fn die_with_parent(command: &mut Command) {
    let with_parent = || {
        // SAFETY: prctl with these arguments accesses no memory of this process.
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
