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

use super::{Console, Initramfs, Kernel, Monitor, initramfs};
use crate::world::{Namespace, unique};

/// Emulation in software needs nothing of the machine it runs on, which may be virtual itself.
const PROGRAM: &str = "qemu-system-x86_64";
/// Where `cargo xtask test` unpacks it if it is not on the path.
const UNPACKED: &str = "../target/qemu";

/// What the guest's kernel is told. An emulated clock is too coarse for the kernel to measure on a
/// busy machine, so that it would wait for ever: it gets a frequency. A panic ends the machine.
const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 loglevel=4 panic=-1 reboot=t tsc_early_khz=2400000 no_timer_check";

/// A running guest; it ends on drop.
pub struct Qemu {
    child: Child,
    /// Its shell.
    pub console: Console,
    /// What drives it.
    pub monitor: Monitor,
    _directory: TempDir,
}

impl Qemu {
    /// Starts a guest, and waits for its shell. It lives no longer than the thread that starts it.
    pub fn boot(hardware: &Hardware<'_>, kernel: &Kernel, files: Initramfs) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&unique("machine")).tempdir()?;
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
        let ready = ready(&mut child, at);
        match ready {
            Ok((console, monitor)) => Ok(Self { child, console, monitor, _directory: directory }),
            Err(error) => {
                end(&mut child);
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
pub struct Hardware<'a> {
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub processors: u32,
    /// Its network card.
    pub card: Option<Card<'a>>,
}

/// A network card whose other end is a tap device.
pub struct Card<'a> {
    /// The namespace of the tap device.
    pub host: &'a Namespace,
    /// The tap device.
    pub tap: &'a str,
    /// The card's MAC address.
    pub mac: &'a str,
}

impl Hardware<'_> {
    /// QEMU with it; what it leaves is in the directory `at`.
    fn command(&self, at: &Path) -> Result<Command> {
        let mut command = match &self.card {
            Some(card) => card.host.command(&program())?,
            None => Command::new(program()),
        };
        command.args(["-M", "microvm", "-accel", "tcg", "-cpu", "max"]);
        command.args(["-m", &self.memory.to_string(), "-smp", &self.processors.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-global", "virtio-mmio.force-legacy=false"]);
        command.arg("-serial").arg(format!("file:{}/kernel", at.display()));
        command.args(["-device", "virtio-serial-device", "-chardev", "stdio,id=shell"]);
        command.args(["-device", "virtserialport,chardev=shell,name=shell"]);
        if let Some(Card { tap, mac, .. }) = self.card {
            let netdev = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
            command.args(["-netdev", &netdev]);
            command.args(["-device", &format!("virtio-net-device,netdev=net,mac={mac}")]);
        }
        command.arg("-qmp").arg(format!("unix:{}/monitor,server=on,wait=off", at.display()));
        Ok(command)
    }
}

fn program() -> String {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(UNPACKED).join(PROGRAM);
    match unpacked.to_str() {
        Some(path) if unpacked.is_file() => path.to_owned(),
        _ => PROGRAM.to_owned(),
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

fn ready(child: &mut Child, at: &Path) -> Result<(Console, Monitor)> {
    let input = child.stdin.take().context("QEMU's stdin")?;
    let output = child.stdout.take().context("QEMU's stdout")?;
    let mut console = Console::new(input, output);
    let monitor = Monitor::connect(&at.join("monitor"))?;
    console.until(initramfs::READY)?;
    Ok((console, monitor))
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Qemu {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
