//! The CPU time and memory of the machine and of processes, from `/proc`.

use std::{
    fs, process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Ticks per second in `/proc` (USER_HZ), the same on every supported architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds used so far.
pub(crate) struct CpuUsage {
    taken_at: Instant,
    machine: f64,
    proxy: f64,
    own_process: f64,
}

/// CPU seconds spent in an interval.
pub(crate) struct CpuSpent {
    /// The length of the interval in seconds.
    pub(crate) elapsed: f64,
    /// Of all processes, on all CPUs.
    pub(crate) machine: f64,
    /// Of the proxy's processes.
    pub(crate) proxy: f64,
    /// Of client, server and proxy.
    pub(crate) client_server_proxy: f64,
}

impl CpuUsage {
    /// The CPU time that the machine and a proxy's processes have used so far.
    pub(crate) fn now(proxy: &[u32]) -> Result<Self> {
        Ok(Self {
            taken_at: Instant::now(),
            machine: machine_cpu_seconds()?,
            proxy: proxy.iter().map(|&pid| process_cpu_seconds(pid)).sum::<Result<f64>>()?,
            own_process: process_cpu_seconds(process::id())?,
        })
    }

    /// The CPU time spent between the two measurements. The proxy must be the same.
    pub(crate) fn spent_until(&self, now: &Self) -> CpuSpent {
        let proxy = now.proxy - self.proxy;
        CpuSpent {
            elapsed: (now.taken_at - self.taken_at).as_secs_f64(),
            machine: now.machine - self.machine,
            proxy,
            client_server_proxy: proxy + now.own_process - self.own_process,
        }
    }
}

/// The number of busy CPUs while nothing is measured: 2 means two fully busy CPUs.
pub(crate) fn busy_processors(time: Duration) -> Result<f64> {
    let before = CpuUsage::now(&[])?;
    thread::sleep(time);
    let spent = before.spent_until(&CpuUsage::now(&[])?);
    Ok(spent.machine / spent.elapsed)
}

/// The time of all CPUs, without idle, iowait and steal.
fn machine_cpu_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("/proc/stat has a line")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, interrupts, softirq, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat begins with {line:?}");
    };
    Ok((user + nice + system + interrupts + softirq) / TICKS_PER_SECOND)
}

/// User and system time of a process with all its threads.
fn process_cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name, in parentheses, can contain any characters.
    let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>().with_context(|| format!("{path} holds times"))?
        / TICKS_PER_SECOND)
}

/// Used memory in MiB.
#[derive(Clone, Copy)]
pub(crate) struct MemoryUsage {
    /// The proportional set size (PSS) of the processes.
    pub(crate) processes: f64,
    /// The memory of the whole machine that is not available.
    pub(crate) machine: f64,
    /// The slab memory of the kernel: sockets, files, and so on. It is part of `machine`.
    pub(crate) slab: f64,
}

impl MemoryUsage {
    /// Measures the current usage.
    pub(crate) fn now(processes: &[u32]) -> Result<Self> {
        let share = |pid: &u32| memory_field_mib(&format!("/proc/{pid}/smaps_rollup"), "Pss");
        let machine = "/proc/meminfo";
        Ok(Self {
            processes: processes.iter().map(share).sum::<Result<f64>>()?,
            machine: memory_field_mib(machine, "MemTotal")?
                - memory_field_mib(machine, "MemAvailable")?,
            slab: memory_field_mib(machine, "Slab")?,
        })
    }
}

/// The value of a line `name: 123 kB`, in MiB.
fn memory_field_mib(path: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.and_then(|value| value.split_whitespace().next());
    let kibibytes: f64 = value.with_context(|| format!("{path} has no {name}"))?.parse()?;
    Ok(kibibytes / 1024.0)
}
