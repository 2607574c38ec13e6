//! What this machine has of what the agent needs. Only looks; changes nothing.

mod host;
mod kernel;
mod privileges;

use std::{fs, path::Path};

use serde::Serialize;

use crate::config::AgentConfig;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    /// As it should be.
    Ok,
    /// The agent works, but not as well as it could.
    Degraded,
    /// The agent cannot work.
    Missing,
}

impl FindingState {
    /// For people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorFinding {
    /// How good it is.
    pub state: FindingState,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl DoctorFinding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { state: FindingState::Ok, what, found: found.into(), fix: None }
    }

    fn degraded(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        let (found, fix) = (found.into(), Some(fix.into()));
        Self { state: FindingState::Degraded, what, found, fix }
    }

    fn missing(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: FindingState::Missing, ..Self::degraded(what, found, fix) }
    }
}

/// Looks at everything.
#[must_use]
pub fn run_checks(config: &AgentConfig, socket: &Path) -> Vec<DoctorFinding> {
    let mut findings = kernel::kernel_checks();
    findings.extend(privileges::privilege_checks());
    findings.extend(host::host_checks(config, socket));
    findings
}

/// The number in a file of /proc/sys; `None` where it is not, or may not be read.
fn read_sysctl(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
