//! What the machine and processes use, from `/proc`.

use std::{
    fs, process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Ticks per second in `/proc` (USER_HZ), on every architecture that this runs on.
const TICKS: f64 = 100.0;

/// Seconds of processor time, up to now.
pub struct Usage {
    at: Instant,
    machine: f64,
    proxy: f64,
    own: f64,
}

/// Seconds of processor time that something took.
pub struct Spent {
    /// The time that went by.
    pub time: f64,
    /// On all processors, whoever used it.
    pub machine: f64,
    /// By the proxy's processes.
    pub proxy: f64,
    /// By client, server and proxy.
    pub all: f64,
}

impl Usage {
    /// What the machine and the processes of a proxy have used.
    pub fn now(proxy: &[u32]) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            machine: used()?,
            proxy: proxy.iter().map(|&pid| used_by(pid)).sum::<Result<f64>>()?,
            own: used_by(process::id())?,
        })
    }

    /// What was spent since then, with the same proxy.
    pub fn spent(&self, now: &Self) -> Spent {
        let proxy = now.proxy - self.proxy;
        Spent {
            time: (now.at - self.at).as_secs_f64(),
            machine: now.machine - self.machine,
            proxy,
            all: proxy + now.own - self.own,
        }
    }
}

/// Processors that are busy while nothing is measured: 2 would be both of two.
pub fn idle(time: Duration) -> Result<f64> {
    let before = Usage::now(&[])?;
    thread::sleep(time);
    let spent = before.spent(&Usage::now(&[])?);
    Ok(spent.machine / spent.time)
}

/// Time of all processors but idle, iowait and steal.
fn used() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("/proc/stat has a line")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, interrupts, softirq, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat begins with {line:?}");
    };
    Ok((user + nice + system + interrupts + softirq) / TICKS)
}

/// User and system time of a process with all its threads.
fn used_by(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name, in parentheses, may hold anything.
    let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>().with_context(|| format!("{path} holds times"))? / TICKS)
}

/// Mebibytes of memory that are in use.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Proportional share of the processes (PSS).
    pub processes: f64,
    /// Of the whole machine: what is not available for others.
    pub machine: f64,
    /// The part of it that is the kernel's objects: sockets, files, and so on.
    pub slab: f64,
}

impl Memory {
    /// What is in use now.
    pub fn now(processes: &[u32]) -> Result<Self> {
        let share = |pid: &u32| field(&format!("/proc/{pid}/smaps_rollup"), "Pss");
        let machine = "/proc/meminfo";
        Ok(Self {
            processes: processes.iter().map(share).sum::<Result<f64>>()?,
            machine: field(machine, "MemTotal")? - field(machine, "MemAvailable")?,
            slab: field(machine, "Slab")?,
        })
    }
}

/// The value of a line `name: 123 kB`, in MiB.
fn field(path: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.and_then(|value| value.split_whitespace().next());
    let kibibytes: f64 = value.with_context(|| format!("{path} has no {name}"))?.parse()?;
    Ok(kibibytes / 1024.0)
}
