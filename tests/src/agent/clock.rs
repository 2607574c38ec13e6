//! A wall clock of the agent's own, which a test can set: libfaketime answers for the kernel.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::Agent;

/// As Debian's package has it, below the directory of the libraries of this architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The library that answers for the kernel.
#[must_use]
pub fn library() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)).join(LIBRARY)
}

/// The wall clock of an agent. Its monotonic clock is the kernel's.
pub struct Clock(PathBuf);

impl Agent {
    /// Gives the agent a clock that can be set, from its next start on.
    pub fn with_clock(&mut self) -> Result<Clock> {
        let library = library();
        ensure!(library.exists(), "{} is missing", library.display());
        let clock = Clock(self.directory().join("clock"));
        clock.set("+0")?;
        self.launch_by(vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", clock.0.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]);
        Ok(clock)
    }
}

impl Clock {
    /// Puts it before or behind the machine's: `+400d`, `-1h`, `+0`.
    pub fn set(&self, offset: &str) -> Result<()> {
        // In one step: it is read at any time.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n"))?;
        fs::rename(&new, &self.0).context("setting the clock")
    }
}
