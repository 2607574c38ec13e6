//! The machine of a measurement. Ratios can be compared across machines, absolute numbers cannot.

use std::{fmt, fs, thread};

use anyhow::{Context as _, Result};
use jiff::Zoned;

/// Kernel, processors and date.
pub(crate) struct MachineInfo {
    kernel: String,
    processor: String,
    processors: usize,
    memory: String,
    date: String,
}

impl MachineInfo {
    /// Describes this machine now.
    pub(crate) fn current() -> Result<Self> {
        let name = nix::sys::utsname::uname().context("asking for the kernel's release")?;
        Ok(Self {
            kernel: name.release().to_string_lossy().into_owned(),
            processor: field("/proc/cpuinfo", "model name")?,
            processors: thread::available_parallelism().map_or(1, usize::from),
            memory: field("/proc/meminfo", "MemTotal")?,
            date: Zoned::now().date().to_string(),
        })
    }
}

impl fmt::Display for MachineInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, processor, processors, memory, date } = self;
        write!(f, "{date}, Linux {kernel}, {processors} × {processor}, {memory}")
    }
}

/// The first value of a field in a file of `name : value` lines.
fn field(path: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
    Ok(value.unwrap_or("unknown").to_owned())
}
