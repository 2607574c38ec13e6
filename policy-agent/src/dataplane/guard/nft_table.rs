//! The guard as a table of nftables, made by `nft`: for kernels without BPF programs of netfilter,
//! for other namespaces than the agent's, and for ports of bridges, whose frames do not come to the
//! IP stack as the port's.
//!
//! A table is replaced as a whole, in one transaction. The kernel removes it with its namespace.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use policy_common::redirect::REDIRECT_MARK;

use super::GUARD_PRIORITY;
use crate::dataplane::net::netns::NetnsHandle;

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NftFamily {
    /// IP packets that an interface hands to the host's stack.
    Inet,
    /// Frames that the ports of bridges receive.
    Bridge,
}

impl NftFamily {
    pub(super) const ALL: [Self; 2] = [Self::Inet, Self::Bridge];

    const fn keyword(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

/// The tables of one agent.
pub(super) struct NftTable {
    name: String,
    mark: u32,
}

impl NftTable {
    /// The tables of the agent with these pins. Their names follow from the directory, because
    /// several agents may share a namespace.
    pub(super) fn new(bpffs: &Path, mark: u32) -> Self {
        let shown = bpffs.display().to_string();
        let path = shown.trim_matches('/').replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        Self { name: format!("guard_{path}"), mark }
    }

    /// Makes a table guard exactly these interfaces. Without any, removes it.
    pub(super) fn write(
        &self,
        namespace: &NetnsHandle,
        family: NftFamily,
        interfaces: &BTreeSet<&str>,
    ) -> Result<()> {
        if let Some(name) = interfaces.iter().find(|name| !is_plain_name(name)) {
            bail!("interface: \"{name}\": nftables cannot match this name; rename the interface");
        }
        let script = self.script(family, interfaces);
        namespace.run_inside(|| run_nft(&script))
    }

    /// Whether there is a table. `false` if that cannot be known.
    pub(super) fn exists(&self, namespace: &NetnsHandle, family: NftFamily) -> bool {
        let list = format!("list table {} {}\n", family.keyword(), self.name);
        namespace.run_inside(|| run_nft(&list)).is_ok()
    }

    fn script(&self, family: NftFamily, interfaces: &BTreeSet<&str>) -> String {
        let (name, mark, family) = (&self.name, self.mark, family.keyword());
        // Adding the table first makes deleting it succeed.
        let replace = format!("add table {family} {name}\ndelete table {family} {name}\n");
        if interfaces.is_empty() {
            return replace;
        }
        let quoted: Vec<String> = interfaces.iter().map(|name| format!("\"{name}\"")).collect();
        let elements = quoted.join(", ");
        format!(
            "{replace}table {family} {name} {{
  set interfaces {{
    type ifname
    elements = {{ {elements} }}
  }}
  chain prerouting {{
    type filter hook prerouting priority {GUARD_PRIORITY}; policy accept;
    iifname @interfaces meta mark & {mark:#x} != {mark:#x} meta mark != {REDIRECT_MARK:#x} counter drop
  }}
}}
"
        )
    }
}

/// Whether `nft` runs here, and the kernel knows tables.
pub(crate) fn is_nftables_usable() -> bool {
    run_nft("list tables\n").is_ok()
}

/// Whether nftables takes a name literally: it has no escapes, and `*` is a wildcard.
fn is_plain_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:@+".contains(&byte))
}

fn run_nft(script: &str) -> Result<()> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = nft.spawn().context("cannot run nft (package nftables)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).context("cannot write to nft")?;
    }
    let output = child.wait_with_output().context("cannot wait for nft")?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft: {}", problem.lines().next().unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_its_interfaces_and_the_mark() {
        let table = NftTable::new(Path::new("/sys/fs/bpf/policy-agent"), 0x1000_0000);
        let script = table.script(NftFamily::Inet, &BTreeSet::from(["tap0", "veth1"]));
        assert!(script.contains("table inet guard_sys_fs_bpf_policy_agent {"), "{script}");
        assert!(script.contains("elements = { \"tap0\", \"veth1\" }"), "{script}");
        assert!(script.contains("meta mark & 0x10000000 != 0x10000000"), "{script}");
        let removal = table.script(NftFamily::Bridge, &BTreeSet::new());
        assert!(removal.ends_with("delete table bridge guard_sys_fs_bpf_policy_agent\n"));
    }

    #[test]
    fn names_that_mean_something_to_nftables_are_refused() {
        assert!(is_plain_name("veth-1.100@if2"));
        for name in ["tap*", "a\"b", "a\\", "$x", "a b"] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
