//! A wall clock that a test can set, for one agent. It preloads libfaketime.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::AgentProcess;

/// The path in Debian's package, below the library directory of the architecture.
const FAKETIME_LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The path of libfaketime.
#[must_use]
pub fn faketime_library() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)).join(FAKETIME_LIBRARY)
}

/// The wall clock of an agent. The agent's monotonic clock stays the kernel's.
pub struct FakeClock(PathBuf);

impl AgentProcess {
    /// Gives the agent an adjustable clock from its next start on.
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
    /// Sets the offset from the machine's clock: `+400d`, `-1h`, `+0`.
    pub fn set_offset(&self, offset: &str) -> Result<()> {
        // Replaces the file atomically, since libfaketime may read it at any time.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n"))?;
        fs::rename(&new, &self.0).context("setting the clock")
    }
}
