//! Checks whether this machine meets the agent's requirements and those of its configuration. Changes
//! nothing.

mod configured;
mod firewall;
mod host;
mod kernel;
mod privileges;
mod sandbox;
mod secret_files;

use std::{borrow::Cow, fs, path::Path};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use self::sandbox::sandbox_checks;
use crate::config::AgentConfig;

/// How well a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    /// The requirement is met.
    Ok,
    /// The agent works, with limitations.
    Degraded,
    /// The agent cannot work.
    Missing,
}

impl FindingState {
    /// The state as a word for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorFinding {
    /// How well a requirement is met.
    pub state: FindingState,
    /// What was checked.
    pub what: Cow<'static, str>,
    /// What was found.
    pub found: String,
    /// How to fix it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl DoctorFinding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { state: FindingState::Ok, what: Cow::Borrowed(what), found: found.into(), fix: None }
    }

    fn degraded(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        let (found, fix) = (found.into(), Some(fix.into()));
        Self { state: FindingState::Degraded, what: Cow::Borrowed(what), found, fix }
    }

    fn missing(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: FindingState::Missing, ..Self::degraded(what, found, fix) }
    }
}

/// Runs all checks.
#[must_use]
pub fn run_checks(config: &AgentConfig, socket: &Path) -> Vec<DoctorFinding> {
    let mut findings = kernel::kernel_checks();
    findings.extend(privileges::privilege_checks());
    findings.extend(host::host_checks(config, socket));
    findings.extend(configured::configuration_checks(config, socket));
    findings.push(firewall::check_input_chains());
    findings
}

/// Reads a number from /proc/sys. `None` if the file is missing or not readable.
fn read_sysctl(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
