//! Settings of the dataplane, and the identity and attachment of a sandbox.

use std::{ffi::OsStr, net::IpAddr, os::unix::ffi::OsStrExt as _, path::PathBuf};

use policy_common::endpoint::{
    ENDPOINT_ACTIVE, ENDPOINT_INBOUND_FROM_HOST, ENDPOINT_REJECT_DENIED, MAX_SANDBOXES,
};
use serde::{Deserialize, Serialize};

use crate::hex::HexDisplay;

/// Prefix of the pin names of interfaces of `[[interfaces]]`.
const INTERFACE_PIN_PREFIX: &str = "slot-";
/// Maximum length of such an interface's name and namespace in bytes. They are hex-encoded in a
/// file name, which has at most 255 bytes.
const MAX_PIN_NAME_BYTES: usize = 115;

/// Settings for all sandboxes: `[dataplane]` of the configuration, and `bpffs`.
#[derive(Clone, Debug)]
pub struct DataplaneSettings {
    /// Directory on a BPF file system that holds the pins.
    pub bpffs: PathBuf,
    /// Which hooks are used.
    pub mode: HookMode,
    /// How programs are attached to TC.
    pub attach_method: AttachMethod,
    /// Whether the kernel's grace periods may be expedited while interfaces are attached and
    /// detached.
    pub expedite_rcu: bool,
    /// Where compiled policies are.
    pub tables: TableKind,
    /// What happens to a denied packet.
    pub deny_action: DenyAction,
    /// Which sources may open connections to a sandbox.
    pub inbound_source: InboundSource,
    /// What drops packets that came past the programs.
    pub guard: GuardSettings,
}

impl DataplaneSettings {
    /// The flags of every active sandbox, as given by these settings.
    pub(super) fn endpoint_flags(&self) -> u32 {
        let mut flags = ENDPOINT_ACTIVE;
        if self.deny_action == DenyAction::Reject {
            flags |= ENDPOINT_REJECT_DENIED;
        }
        if self.inbound_source == InboundSource::Host {
            flags |= ENDPOINT_INBOUND_FROM_HOST;
        }
        flags
    }
}

/// `mode`: which hooks are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookMode {
    /// TC only.
    #[default]
    Tc,
    /// TC, and XDP for early drop.
    Xdp,
}

/// `attach`: how programs are attached to TC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMethod {
    /// tcx if the kernel supports it (6.6), clsact otherwise.
    #[default]
    Auto,
    /// tcx links.
    Tcx,
    /// A clsact qdisc with filters.
    Clsact,
}

/// `tables`: where compiled policies are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// In tables of their own, and in the LPM tries if they do not fit there.
    #[default]
    Flat,
    /// In the kernel's LPM tries.
    Lpm,
}

/// `deny_action`: what happens to a denied packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyAction {
    /// The sender gets a reply: TCP reset, or ICMP administratively prohibited.
    #[default]
    Reject,
    /// It is dropped silently.
    Drop,
}

/// `inbound`: which sources may open connections to a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InboundSource {
    /// Any source that the host routes.
    #[default]
    Any,
    /// Only the host itself.
    Host,
}

/// The settings of the guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardSettings {
    /// What guards.
    pub method: GuardMethod,
    /// The mark of packets that may pass.
    pub mark: GuardMark,
}

/// `guard`: what drops packets that came past the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardMethod {
    /// A BPF program of netfilter if the kernel supports it, and nftables elsewhere.
    #[default]
    Auto,
    /// Tables of nftables everywhere.
    Nftables,
    /// Nothing.
    Off,
}

/// `guard_mark`: one bit of a packet's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct GuardMark(u32);

impl GuardMark {
    /// The mark as a number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for GuardMark {
    /// A bit that kube-proxy, Cilium, Tailscale, Docker, Podman and the AWS CNI do not use.
    fn default() -> Self {
        Self(0x1000_0000)
    }
}

impl TryFrom<u32> for GuardMark {
    type Error = String;

    fn try_from(mark: u32) -> Result<Self, String> {
        let problem = || format!("{mark:#x} is not one bit; write one like 0x10000000");
        mark.is_power_of_two().then_some(Self(mark)).ok_or_else(problem)
    }
}

impl From<GuardMark> for u32 {
    fn from(mark: GuardMark) -> Self {
        mark.0
    }
}

/// The index of a sandbox in the kernel's arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Slot(u32);

impl Slot {
    /// The slot with this number, 1 to `MAX_SANDBOXES` - 1.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (1..MAX_SANDBOXES).contains(&number).then_some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// All slots, in ascending order.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..MAX_SANDBOXES).map(Self)
    }
}

impl TryFrom<u32> for Slot {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("{number} is no slot"))
    }
}

impl From<Slot> for u32 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

/// The host-side interface that a sandbox is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostInterface {
    /// Name of the interface.
    pub name: String,
    /// The network namespace that contains it. `None` means the agent's own.
    pub netns: Option<PathBuf>,
}

impl HostInterface {
    /// The name under which the gates of an interface of `[[interfaces]]` are pinned, whichever
    /// sandbox uses it. It is not a valid sandbox ID. `None` if it would be too long for a file
    /// name.
    #[must_use]
    pub fn pin_name(&self) -> Option<String> {
        // Interface names contain no slash, and namespace paths start with one.
        let mut pinned_name = self.name.clone().into_bytes();
        if let Some(netns) = &self.netns {
            pinned_name.extend_from_slice(netns.as_os_str().as_bytes());
        }
        (pinned_name.len() <= MAX_PIN_NAME_BYTES)
            .then(|| format!("{INTERFACE_PIN_PREFIX}{}", HexDisplay(&pinned_name)))
    }

    /// The interface whose gates are pinned under this name. `None` if the name is a sandbox ID.
    #[must_use]
    pub fn from_pin_name(name: &str) -> Option<Self> {
        let (pairs, []) = name.strip_prefix(INTERFACE_PIN_PREFIX)?.as_bytes().as_chunks::<2>()
        else {
            return None;
        };
        let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        let pinned_name: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
        let end = pinned_name.iter().position(|byte| *byte == b'/').unwrap_or(pinned_name.len());
        let (name, netns) = pinned_name.split_at(end);
        let netns = (!netns.is_empty()).then(|| OsStr::from_bytes(netns).into());
        Some(Self { name: String::from_utf8(name.to_vec()).ok()?, netns })
    }
}

/// The addresses of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointAddresses {
    /// Its MAC address, if known.
    pub mac: Option<[u8; 6]>,
    /// Its IP addresses, at most `MAX_ADDRESSES_PER_FAMILY` of each family.
    pub addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_name_their_interface() {
        for netns in [None, Some("/run/netns/slot1".into())] {
            let interface = HostInterface { name: "tap0".to_owned(), netns };
            let name = interface.pin_name().expect("a short place");
            assert!(name.len() <= 255 && name.parse::<crate::policy::SandboxId>().is_err());
            assert_eq!(HostInterface::from_pin_name(&name), Some(interface));
        }
        let far = HostInterface { name: "tap0".to_owned(), netns: Some("/n".repeat(60).into()) };
        assert_eq!(far.pin_name(), None);
    }

    #[test]
    fn other_names_are_no_interfaces() {
        for name in ["web", "slot7", "slot-7", "slot-zz", "slot-ff"] {
            assert_eq!(HostInterface::from_pin_name(name), None, "{name}");
        }
    }
}
