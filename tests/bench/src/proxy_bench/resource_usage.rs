//! What the machine and processes use, from `/proc`.

use std::{
    fs, process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Ticks per second in `/proc` (USER_HZ), on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time, up to now.
pub(crate) struct CpuUsage {
    taken_at: Instant,
    machine: f64,
    proxy: f64,
    own_process: f64,
}

/// Seconds of processor time that something took.
pub(crate) struct CpuSpent {
    /// The time that went by.
    pub(crate) elapsed: f64,
    /// On all processors, whoever used it.
    pub(crate) machine: f64,
    /// By the proxy's processes.
    pub(crate) proxy: f64,
    /// By client, server and proxy.
    pub(crate) client_server_proxy: f64,
}

impl CpuUsage {
    /// What the machine and the processes of a proxy have used.
    pub(crate) fn now(proxy: &[u32]) -> Result<Self> {
        Ok(Self {
            taken_at: Instant::now(),
            machine: machine_cpu_seconds()?,
            proxy: proxy.iter().map(|&pid| process_cpu_seconds(pid)).sum::<Result<f64>>()?,
            own_process: process_cpu_seconds(process::id())?,
        })
    }

    /// What was spent since then, with the same proxy.
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

/// Processors that are busy while nothing is measured: 2 would be both of two.
pub(crate) fn busy_processors(time: Duration) -> Result<f64> {
    let before = CpuUsage::now(&[])?;
    thread::sleep(time);
    let spent = before.spent_until(&CpuUsage::now(&[])?);
    Ok(spent.machine / spent.elapsed)
}

/// Time of all processors but idle, iowait and steal.
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
    // The name, in parentheses, may hold anything.
    let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>().with_context(|| format!("{path} holds times"))?
        / TICKS_PER_SECOND)
}

/// Mebibytes of memory that are in use.
#[derive(Clone, Copy)]
pub(crate) struct MemoryUsage {
    /// Proportional share of the processes (PSS).
    pub(crate) processes: f64,
    /// Of the whole machine: what is not available for others.
    pub(crate) machine: f64,
    /// The part of it that is the kernel's objects: sockets, files, and so on.
    pub(crate) slab: f64,
}

impl MemoryUsage {
    /// What is in use now.
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
