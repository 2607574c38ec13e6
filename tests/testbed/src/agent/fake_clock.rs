//! A wall clock of the agent's own, which a test can set: libfaketime answers for the kernel.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::AgentProcess;

/// As Debian's package has it, below the directory of the libraries of this architecture.
const FAKETIME_LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The library that answers for the kernel.
#[must_use]
pub fn faketime_library() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)).join(FAKETIME_LIBRARY)
}

/// The wall clock of an agent. Its monotonic clock is the kernel's.
pub struct FakeClock(PathBuf);

impl AgentProcess {
    /// Gives the agent a clock that can be set, from its next start on.
    pub fn use_fake_clock(&mut self) -> Result<FakeClock> {
        let library = faketime_library();
        ensure!(library.exists(), "{} is missing", library.display());
        let clock = FakeClock(self.directory().join("clock"));
        clock.set_offset("+0")?;
        self.set_launch_prefix(vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", clock.0.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]);
        Ok(clock)
    }
}

impl FakeClock {
    /// Puts it before or behind the machine's: `+400d`, `-1h`, `+0`.
    pub fn set_offset(&self, offset: &str) -> Result<()> {
        // In one step: it is read at any time.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n"))?;
        fs::rename(&new, &self.0).context("setting the clock")
    }
}
