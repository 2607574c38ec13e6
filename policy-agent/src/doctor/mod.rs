//! What this machine has of what the agent needs. Only looks; changes nothing.

mod host;
mod kernel;
mod privileges;

use std::{fs, path::Path};

use serde::Serialize;

use crate::config::Config;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// The agent works, but not as well as it could.
    Degraded,
    /// The agent cannot work.
    Missing,
}

impl State {
    /// For people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub state: State,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { state: State::Ok, what, found: found.into(), mend: None }
    }

    fn degraded(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let (found, mend) = (found.into(), Some(mend.into()));
        Self { state: State::Degraded, what, found, mend }
    }

    fn missing(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { state: State::Missing, ..Self::degraded(what, found, mend) }
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(config: &Config, socket: &Path) -> Vec<Finding> {
    let mut findings = kernel::examine();
    findings.extend(privileges::examine());
    findings.extend(host::examine(config, socket));
    findings
}

/// The number in a file of /proc/sys; `None` where it is not, or may not be read.
fn sysctl(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
