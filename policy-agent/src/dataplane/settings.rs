//! What the kernel side is told: settings for all sandboxes, and who and where one sandbox is.

use std::{ffi::OsStr, net::IpAddr, os::unix::ffi::OsStrExt as _, path::PathBuf};

use policy_common::endpoint::{
    ENDPOINT_ACTIVE, ENDPOINT_INBOUND_FROM_HOST, ENDPOINT_REJECT_DENIED, MAX_SANDBOXES,
};
use serde::{Deserialize, Serialize};

/// Begins the name of the gates of an interface of `[[interfaces]]`.
const INTERFACE_PIN_PREFIX: &str = "slot-";
/// Bytes of such an interface's name and namespace: twice as many digits have to fit into the name
/// of a file, which has up to 255.
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
    /// What happens to a denied packet.
    pub deny_action: DenyAction,
    /// Who may start connections towards a sandbox.
    pub inbound_source: InboundSource,
}

impl DataplaneSettings {
    /// The flags of every active sandbox that follow from these settings.
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
    /// tcx where the kernel has it (6.6), clsact elsewhere.
    #[default]
    Auto,
    /// tcx links.
    Tcx,
    /// A clsact qdisc with filters.
    Clsact,
}

/// `deny_action`: what happens to a denied packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyAction {
    /// It is answered: TCP reset, ICMP administratively prohibited.
    #[default]
    Reject,
    /// It vanishes.
    Drop,
}

/// `inbound`: who may start connections towards a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InboundSource {
    /// Whoever the host routes.
    #[default]
    Any,
    /// The host itself.
    Host,
}

/// The number of a sandbox in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Slot(u32);

impl Slot {
    /// A slot by number, 1 to `MAX_SANDBOXES` - 1.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (1..MAX_SANDBOXES).contains(&number).then_some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// All slots, by rising number.
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

/// Where a sandbox is attached: the host-side interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostInterface {
    /// Name of the interface.
    pub name: String,
    /// Network namespace it is in; the agent's own if there is none.
    pub netns: Option<PathBuf>,
}

impl HostInterface {
    /// Under which name the gates of an interface of `[[interfaces]]` are pinned, whoever has it. No
    /// sandbox has such an ID. `None`: it is too long for the name of a file.
    #[must_use]
    pub fn pin_name(&self) -> Option<String> {
        // An interface's name has no slash, and the path of a namespace begins with one.
        let mut pinned_name = self.name.clone().into_bytes();
        if let Some(netns) = &self.netns {
            pinned_name.extend_from_slice(netns.as_os_str().as_bytes());
        }
        let digits = || pinned_name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        (pinned_name.len() <= MAX_PIN_NAME_BYTES)
            .then(|| format!("{INTERFACE_PIN_PREFIX}{}", digits()))
    }

    /// The interface whose gates are pinned under this name; `None`: they are a sandbox's own.
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

/// Who a sandbox is on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointAddresses {
    /// Its MAC address, if that is known.
    pub mac: Option<[u8; 6]>,
    /// Its addresses, at most `MAX_ADDRESSES` of each family.
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
