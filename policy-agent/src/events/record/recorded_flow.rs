//! An entry of the record, in the form that users see and that the files hold.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use policy_common::reason::Reason;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::flow_destination_key::FlowDestinationKey;
use crate::policy::{RuleRef, SandboxId, parse_reason_label};

/// The label of a reason. An alias, since serde would borrow a reference from what it reads.
type ReasonLabel = &'static str;

/// What was decided.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FlowDecision {
    /// It passed.
    Allowed,
    /// It was denied.
    Denied,
    /// It passed, because the sandbox is observed. The reason is what would deny it.
    WouldDeny,
}

/// One destination of a sandbox with one decision, and how often it occurred. Fields without a value
/// are omitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedFlow {
    /// The sandbox.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    pub sandbox_id: SandboxId,
    /// When it was first seen, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub first_seen: Timestamp,
    /// When it was last seen, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: Timestamp,
    /// What was decided.
    pub decision: FlowDecision,
    /// The label of the reason.
    #[serde(deserialize_with = "reason_label")]
    #[schema(value_type = String)]
    pub reason: ReasonLabel,
    /// The rule that decided last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the protocol number. For a frame that does not carry IP,
    /// its EtherType.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub protocol: Option<Cow<'static, str>>,
    /// The address of the destination, or, of an inbound flow, of its source. With a name, the last
    /// one that the sandbox connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name that was asked for, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it goes to the sandbox.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inbound: bool,
    /// Connections, requests, or new flows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub connections: u64,
    /// Packets that the kernel reported.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub packets: u64,
    /// Bytes of these packets, Ethernet headers included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// How many rarer destinations this entry stands for, because there was no room for each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub merged: u64,
}

impl RecordedFlow {
    /// What identifies it within its sandbox.
    pub(super) fn key(&self) -> FlowDestinationKey {
        FlowDestinationKey {
            decision: self.decision,
            reason: self.reason,
            protocol: self.protocol.clone(),
            address: self.address.filter(|_| self.name.is_none()),
            port: self.port,
            name: self.name.clone(),
            inbound: self.inbound,
        }
    }

    /// The reason.
    #[must_use]
    pub fn parsed_reason(&self) -> Option<Reason> {
        parse_reason_label(self.reason).ok()
    }

    /// How often it occurred: connections, or packets where there are no connections.
    #[must_use]
    pub const fn count(&self) -> u64 {
        if self.connections > 0 { self.connections } else { self.packets }
    }
}

fn reason_label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    let label = Cow::<'_, str>::deserialize(deserializer)?;
    parse_reason_label(&label).map(Reason::label).map_err(de::Error::custom)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}
