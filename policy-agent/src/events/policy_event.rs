//! A policy event in the form that users see.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use jiff::Timestamp;
use policy_common::{event::VerdictEvent, reason::Reason};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    agent::EventAttribution,
    policy::{RuleRef, SandboxId, evaluate::IPPROTO_TCP, resolve_rule},
};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// The verdict on what passes because the sandbox is observed.
const WOULD_DENY: &str = "would_deny";
/// Characters of a name that are shown: one more than a valid name can have.
const MAX_NAME_CHARS: usize = 254;

/// A verdict on a packet or a connection. Fields without a value are omitted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyEvent {
    /// The time of the event, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The sandbox that sends or receives the packet.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    pub sandbox_id: SandboxId,
    /// `denied`, `allowed`, or `would_deny`: it passed, because the sandbox is observed.
    pub verdict: &'static str,
    /// The label of the reason.
    pub reason: &'static str,
    /// The line of precedence that decided, or 0 if none did.
    pub line: u8,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub protocol: Option<Cow<'static, str>>,
    /// The source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// The source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub destination: Option<IpAddr>,
    /// The destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u16>,
    /// The ICMP code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u16>,
    /// The EtherType of a frame that does not carry IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<String>,
    /// The name that the connection requests, as sent. Present on verdicts of the egress proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The length of the frame in bytes, Ethernet header included. Absent for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
}

impl PolicyEvent {
    /// The event for the egress proxy's verdict on a connection. Truncates an overlong name.
    #[must_use]
    pub fn from_connection(
        sandbox_id: SandboxId,
        source: SocketAddr,
        destination: SocketAddr,
        name: Option<String>,
        reason: Reason,
        rule: Option<RuleRef>,
    ) -> Self {
        Self {
            time: Timestamp::now(),
            sandbox_id,
            verdict: verdict_label(reason),
            reason: reason.label(),
            line: reason.line(),
            rule,
            protocol: Some(protocol_label(IPPROTO_TCP)),
            source: Some(source.ip().to_canonical()),
            source_port: Some(source.port()),
            destination: Some(destination.ip().to_canonical()),
            destination_port: Some(destination.port()),
            icmp_type: None,
            icmp_code: None,
            ethertype: None,
            name: name.map(|name| name.chars().take(MAX_NAME_CHARS).collect()),
            length: None,
        }
    }

    /// Translates a kernel event. `None` if its sandbox is gone, or if this agent does not know the
    /// reason.
    #[must_use]
    pub fn from_event(
        event: &VerdictEvent,
        time: Timestamp,
        attribution: &EventAttribution,
    ) -> Option<Self> {
        let reason = Reason::from_code(event.reason_code)?;
        let (sandbox_id, active_policy) = attribution.resolve_event(event.slot, event.policy_id)?;
        let is_ip = event.ethertype == IPV4 || event.ethertype == IPV6;
        let is_tcp_or_udp = is_ip && matches!(event.protocol, IPPROTO_TCP | 17);
        let is_icmp = is_ip && matches!(event.protocol, 1 | 58);
        // What is observed has the reason that would deny it.
        let is_observed = reason == Reason::WouldDeny;
        let reason = if is_observed { Reason::DenyOut } else { reason };
        Some(Self {
            time,
            sandbox_id,
            verdict: if is_observed { WOULD_DENY } else { verdict_label(reason) },
            reason: reason.label(),
            line: reason.line(),
            rule: active_policy.and_then(|active_policy| {
                resolve_rule(&active_policy.policy, &active_policy.floor, reason, event.rule_index)
            }),
            protocol: is_ip.then(|| protocol_label(event.protocol)),
            source: unmapped_address(event.source_address),
            source_port: is_tcp_or_udp.then_some(event.source_port),
            destination: unmapped_address(event.destination_address),
            destination_port: is_tcp_or_udp.then_some(event.destination_port),
            icmp_type: is_icmp.then_some(event.source_port),
            icmp_code: is_icmp.then_some(event.destination_port),
            ethertype: (!is_ip).then(|| ethertype_label(event.ethertype)),
            name: None,
            length: Some(event.frame_length),
        })
    }

    /// The event for a verdict that would deny, if the sandbox were not observed.
    #[must_use]
    pub fn observed(self) -> Self {
        Self { verdict: WOULD_DENY, ..self }
    }

    /// Returns whether the packet or connection was denied.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.verdict == "denied"
    }

    /// Returns whether it passed only because the sandbox is observed.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.verdict == WOULD_DENY
    }

    /// Returns whether it was denied, or would be.
    #[must_use]
    pub fn concerns_denial(&self) -> bool {
        self.is_denial() || self.is_observed()
    }
}

fn verdict_label(reason: Reason) -> &'static str {
    if reason.passes() { "allowed" } else { "denied" }
}

fn protocol_label(number: u8) -> Cow<'static, str> {
    match number {
        1 => "icmp".into(),
        IPPROTO_TCP => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        other => other.to_string().into(),
    }
}

fn ethertype_label(number: u16) -> String {
    match number {
        ARP => "arp".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

/// Converts an address back from its IPv4-mapped form. `None` if the event has no address.
fn unmapped_address(octets: [u8; 16]) -> Option<IpAddr> {
    let address = Ipv6Addr::from(octets);
    (!address.is_unspecified()).then(|| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use policy_common::{ipv4_mapped, verdict::NO_RULE};

    use super::*;
    use crate::dataplane::Slot;

    fn attribution() -> EventAttribution {
        let attribution = EventAttribution::default();
        attribution.assign_slot(Slot::new(3).expect("a slot"), &"web".parse().expect("an ID"));
        attribution
    }

    fn json(event: &VerdictEvent) -> Option<serde_json::Value> {
        let policy_event = PolicyEvent::from_event(event, Timestamp::UNIX_EPOCH, &attribution())?;
        Some(serde_json::to_value(policy_event).expect("JSON"))
    }

    #[test]
    fn a_denied_connection() {
        let event = VerdictEvent {
            slot: 3,
            rule_index: 1,
            reason_code: Reason::PlatformDeny as u8,
            ethertype: IPV4,
            protocol: 6,
            frame_length: 74,
            source_address: ipv4_mapped([10, 11, 0, 2]),
            source_port: 40000,
            destination_address: ipv4_mapped([10, 0, 0, 1]),
            destination_port: 443,
            ..VerdictEvent::default()
        };
        let json = json(&event).expect("a record");
        assert_eq!(json["time"], "1970-01-01T00:00:00Z");
        assert_eq!(json["sandboxID"], "web");
        assert_eq!(json["verdict"], "denied");
        assert_eq!(json["line"], 5);
        assert_eq!(json["destination"], "10.0.0.1");
        assert_eq!(json["destinationPort"], 443);
        assert!(json.get("ethertype").is_none());
    }

    #[test]
    fn a_frame_that_is_not_ip() {
        let reason = Reason::UnknownEthertype as u8;
        let event = VerdictEvent {
            slot: 3,
            rule_index: NO_RULE,
            reason_code: reason,
            ethertype: 0x88cc,
            ..VerdictEvent::default()
        };
        let json = json(&event).expect("a record");
        assert_eq!(json["ethertype"], "0x88cc");
        assert!(json.get("protocol").is_none() && json.get("source").is_none());
    }

    #[test]
    fn an_unassigned_slot_has_no_event() {
        assert!(
            json(&VerdictEvent { slot: 4, reason_code: 26, ..VerdictEvent::default() }).is_none()
        );
        assert!(
            json(&VerdictEvent { slot: 3, reason_code: 0, ..VerdictEvent::default() }).is_none()
        );
    }
}
