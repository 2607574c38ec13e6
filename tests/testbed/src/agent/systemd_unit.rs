//! The privileges that the agent's systemd unit grants, so that a test can start the agent with
//! exactly these.

use anyhow::{Context as _, Result};

/// The shipped unit.
const UNIT_FILE: &str = include_str!("../../../../policy-agent/systemd/policy-agent.service");

/// The privileges that the unit grants.
pub struct SystemdUnit {
    capabilities: Vec<String>,
}

impl SystemdUnit {
    /// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON and CAP_BPF. The agent needs
    /// all of them.
    pub const REQUIRED_CAPABILITIES: [u8; 5] = [10, 12, 21, 38, 39];

    /// Reads the shipped unit.
    ///
    /// # Errors
    /// The unit grants all capabilities or none, or allows new ones through `exec`.
    pub fn read_shipped() -> Result<Self> {
        let value = |name: &str| {
            let value =
                UNIT_FILE.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.with_context(|| format!("the unit has no {name}"))
        };
        anyhow::ensure!(value("NoNewPrivileges")? == "yes", "exec could give more");
        let words = value("CapabilityBoundingSet")?.split_whitespace();
        let capabilities: Option<Vec<String>> =
            words.map(|word| Some(word.strip_prefix("CAP_")?.to_ascii_lowercase())).collect();
        let capabilities = capabilities.context("the unit's capabilities are no plain list")?;
        anyhow::ensure!(!capabilities.is_empty(), "the unit leaves no capabilities");
        Ok(Self { capabilities })
    }

    /// The capabilities as a bit mask, as in `/proc/PID/status`.
    ///
    /// # Errors
    /// A capability is missing in the table of this module.
    pub fn capability_mask(&self) -> Result<u64> {
        let bits = self.capabilities.iter().map(|name| {
            let known = CAPABILITY_NUMBERS.iter().find(|(known, _)| known == name);
            known.map(|(_, bit)| 1_u64 << bit).with_context(|| format!("{name} has no number here"))
        });
        bits.sum()
    }

    /// The command that runs a program as root with these capabilities, as systemd starts a unit
    /// without `User`.
    #[must_use]
    pub fn launch_prefix(&self) -> Vec<String> {
        let mut words = vec!["setpriv".to_owned(), "--no-new-privs".to_owned()];
        words.push("--inh-caps=-all".to_owned());
        words.push(format!("--bounding-set=-all,+{}", self.capabilities.join(",+")));
        words
    }
}

/// From `capability.h`.
const CAPABILITY_NUMBERS: [(&str, u8); 10] = [
    ("dac_override", 1),
    ("net_bind_service", 10),
    ("net_admin", 12),
    ("net_raw", 13),
    ("ipc_lock", 14),
    ("sys_ptrace", 19),
    ("sys_admin", 21),
    ("sys_resource", 24),
    ("perfmon", 38),
    ("bpf", 39),
];
