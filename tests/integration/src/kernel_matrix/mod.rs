//! Runs the tests on other kernels, in one virtual machine per kernel with this machine's programs.

#![expect(clippy::print_stdout, reason = "it is for people to read")]

mod guest_root;
mod kernel_modules;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::guest_vm::{ConsoleOutput, GuestKernel, Initramfs, QemuProcess, VmHardware};
use policy_testbed::wait;

/// The time limit of one test binary: an emulated machine is about ten times slower.
const BINARY_TIMEOUT: Duration = Duration::from_secs(4 * 3_600);

/// Prepares a machine for the tests beyond mounting the kernel's file systems. The kernel itself
/// requests modules through `/sbin/modprobe`. The module for tap devices must be loaded here, since
/// it creates the device node whose opening would request it.
const SETUP_SCRIPT: &str = "export PATH=/usr/bin:/bin HOME=/tmp TMPDIR=/tmp RUST_BACKTRACE=0 &&
    mkdir -p /dev/net /dev/pts /dev/shm /run /sbin &&
    ln -s /bin/busybox /sbin/modprobe && modprobe tun &&
    mount -t tmpfs tmp /tmp && mount -t tmpfs run /run && mount -t tmpfs shm /dev/shm &&
    mount -t devpts pts /dev/pts &&
    mount -t bpf bpf /sys/fs/bpf && mount -t cgroup2 cgroup /sys/fs/cgroup &&
    : >>/etc/resolv.conf && ip link set lo up";

/// Tests that require features that a kernel lacks, with the prefixes of those kernels' releases.
const UNSUPPORTED_TESTS: [(&[&str], &[&str]); 2] = [
    // `BPF_PROG_TEST_RUN` cannot set the interface on which a frame arrived.
    (&["5.10."], &["inbound_state::", "connection_lifetimes::", "kernel_and_oracle_agree"]),
    // tcx links do not exist, and an interface that is up cannot be renamed.
    (&["5.10.", "6.1."], &["foreign_programs::", "link_pins_of_a_sandbox", "an_interface_renamed"]),
];

/// A kernel and the tests to run on it.
pub struct KernelTestRun<'a> {
    /// An unpacked kernel package.
    pub kernel: &'a Path,
    /// The agent's binary.
    pub agent: &'a Path,
    /// The test binaries.
    pub tests: &'a [PathBuf],
    /// Arguments for the test binaries: test names or options.
    pub arguments: &'a [String],
    /// How many seconds tests wait for expected events.
    pub wait_seconds: u32,
}

impl KernelTestRun<'_> {
    /// Runs the tests, prints the result of each binary, and returns the number of failed ones.
    pub fn run(&self) -> Result<usize> {
        let began = Instant::now();
        let mut machine = self.boot()?;
        let release = machine.console.run("uname -r")?.text;
        println!("\n## Linux {}, after {} s", release.trim(), began.elapsed().as_secs());
        let doctor = machine.console.run("/t/policy-agent doctor")?;
        println!("{}", doctor.text.trim_end());
        ensure!(doctor.code == 0, "`doctor` says that the agent cannot work on this kernel");
        let skipped = unsupported_tests(&release);
        if !skipped.is_empty() {
            println!("not tried on this kernel: {}", skipped.join(", "));
        }
        let skipped = skipped.iter().flat_map(|test| ["--skip", test]);
        let arguments: Vec<&str> =
            self.arguments.iter().map(String::as_str).chain(skipped).collect();
        let mut failed = 0;
        for test in self.tests {
            failed += usize::from(!self.run_binary(&mut machine, test, &arguments)?);
        }
        Ok(failed)
    }

    fn boot(&self) -> Result<QemuProcess> {
        let kernel = GuestKernel::from_directory(self.kernel.to_owned());
        let mut files = Initramfs::for_kernel(&kernel)?;
        kernel_modules::add_modules(&mut files, &kernel)?;
        guest_root::add_programs(&mut files)?;
        guest_root::add_program(&mut files, "t/policy-agent", self.agent)?;
        for test in self.tests {
            guest_root::add_program(&mut files, &format!("t/{}", test_binary_name(test)?), test)?;
        }
        let hardware = VmHardware { memory: 4_096, processors: 2, card: None };
        let mut machine = QemuProcess::boot(&hardware, &kernel, files)?;
        let setup = machine.console.run(SETUP_SCRIPT)?;
        ensure!(setup.code == 0, "setting up the machine: {}", setup.text);
        Ok(machine)
    }

    fn run_binary(
        &self,
        machine: &mut QemuProcess,
        test: &Path,
        arguments: &[&str],
    ) -> Result<bool> {
        let (name, began) = (test_binary_name(test)?, Instant::now());
        let command = format!(
            "{}={} POLICY_AGENT_BIN=/t/policy-agent /t/{name} {} 2>&1",
            wait::WAIT_LIMIT_VARIABLE,
            self.wait_seconds,
            arguments.join(" "),
        );
        let output = machine.console.run_within(BINARY_TIMEOUT, &command)?;
        let passed = output.code == 0;
        if !passed || arguments.contains(&"--nocapture") {
            println!("{}", output.text);
        }
        println!("{name}: {} ({} s)", result_summary(&output), began.elapsed().as_secs());
        Ok(passed)
    }
}

fn unsupported_tests(release: &str) -> Vec<&'static str> {
    let is_one = |series: &&[&str]| series.iter().any(|series| release.starts_with(series));
    let lists =
        UNSUPPORTED_TESTS.iter().filter(|(kernels, _)| is_one(kernels)).map(|(_, tests)| *tests);
    lists.flatten().copied().collect()
}

/// The last line of a test binary's output.
fn result_summary(output: &ConsoleOutput) -> String {
    let result = output.text.lines().rev().find_map(|line| line.strip_prefix("test result: "));
    let words = result.and_then(|result| result.split_once("; 0 measured"));
    words.map_or_else(|| format!("exit code {}", output.code), |(words, _)| words.to_owned())
}

/// A test binary's name, without the hash that cargo adds.
fn test_binary_name(binary: &Path) -> Result<&str> {
    let file = binary.file_name().and_then(|name| name.to_str());
    let name = file.and_then(|name| name.rsplit_once('-')).map(|(name, _)| name);
    name.with_context(|| format!("{} is no test binary of cargo's", binary.display()))
}
