//! The agent's systemd unit, as far as it takes rights away: by it the agent can be started with
//! these and no other.

use anyhow::{Context as _, Result};

/// The unit that is shipped.
const UNIT_FILE: &str = include_str!("../../../../policy-agent/systemd/policy-agent.service");

/// The rights that the unit leaves.
pub struct SystemdUnit {
    capabilities: Vec<String>,
}

impl SystemdUnit {
    /// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON and CAP_BPF: without one of
    /// them something is not shown.
    pub const REQUIRED_CAPABILITIES: [u8; 5] = [10, 12, 21, 38, 39];

    /// Reads the unit that is shipped.
    ///
    /// # Errors
    /// It leaves all capabilities or none, or new ones by `exec`.
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

    /// Bit by bit, as `/proc/PID/status` shows them.
    ///
    /// # Errors
    /// One of them is not in the table here.
    pub fn capability_mask(&self) -> Result<u64> {
        let bits = self.capabilities.iter().map(|name| {
            let known = CAPABILITY_NUMBERS.iter().find(|(known, _)| known == name);
            known.map(|(_, bit)| 1_u64 << bit).with_context(|| format!("{name} has no number here"))
        });
        bits.sum()
    }

    /// What has to stand before a program's path: root with these capabilities, as systemd starts
    /// a unit without `User`.
    #[must_use]
    pub fn launch_prefix(&self) -> Vec<String> {
        let mut words = vec!["setpriv".to_owned(), "--no-new-privs".to_owned()];
        words.push("--inh-caps=-all".to_owned());
        words.push(format!("--bounding-set=-all,+{}", self.capabilities.join(",+")));
        words
    }
}

/// capability.h
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
