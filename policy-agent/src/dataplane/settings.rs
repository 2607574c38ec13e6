//! What the kernel side is told: settings for all sandboxes, and who and where one sandbox is.

use std::{net::IpAddr, path::PathBuf};

use policy_common::sandbox::{ACTIVE, INBOUND_FROM_HOST, MAX_SANDBOXES, REJECT};
use serde::{Deserialize, Serialize};

/// Settings for all sandboxes: `[dataplane]` of the configuration, and `bpffs`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory on a BPF file system that holds the pins.
    pub bpffs: PathBuf,
    /// Which hooks are used.
    pub mode: Mode,
    /// How programs are attached to TC.
    pub attach: AttachMethod,
    /// What happens to a denied packet.
    pub deny_action: DenyAction,
    /// Who may start connections towards a sandbox.
    pub inbound: Inbound,
}

impl Settings {
    /// The flags of every active sandbox that follow from these settings.
    pub(super) fn flags(&self) -> u32 {
        let mut flags = ACTIVE;
        if self.deny_action == DenyAction::Reject {
            flags |= REJECT;
        }
        if self.inbound == Inbound::Host {
            flags |= INBOUND_FROM_HOST;
        }
        flags
    }
}

/// `mode`: which hooks are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
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
pub enum Inbound {
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
pub struct Interface {
    /// Name of the interface.
    pub name: String,
    /// Network namespace it is in; the agent's own if there is none.
    pub netns: Option<PathBuf>,
}

/// Who a sandbox is on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its MAC address, if that is known.
    pub mac: Option<[u8; 6]>,
    /// Its addresses, at most `MAX_ADDRESSES` of each family.
    pub addresses: Vec<IpAddr>,
}
