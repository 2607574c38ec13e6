//! What identifies an entry of the record within its sandbox.

use std::{borrow::Cow, net::IpAddr};

use policy_common::reason::Reason;

use super::recorded_flow::FlowDecision;
use crate::events::PolicyEvent;

/// Reasons for which no flow is recorded: the egress proxy reports its own verdict after the first,
/// and the others are part of flows that were opened before.
const UNRECORDED: [Reason; 3] = [Reason::ByName, Reason::Reply, Reason::Neighbor];

/// A destination with a decision and its reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowDestinationKey {
    pub decision: FlowDecision,
    pub reason: &'static str,
    pub protocol: Option<Cow<'static, str>>,
    /// Absent if there is a name: where the sandbox thinks that a name leads does not matter.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub name: Option<String>,
    pub inbound: bool,
}

impl FlowDestinationKey {
    /// The key of an event. `None` if the event is not recorded.
    pub(super) fn of_event(event: &PolicyEvent) -> Option<Self> {
        if UNRECORDED.iter().any(|reason| reason.label() == event.reason) {
            return None;
        }
        let name = event.name.as_deref().filter(|name| !is_address(name));
        let inbound = [Reason::InboundRefused, Reason::Delivered]
            .iter()
            .any(|reason| reason.label() == event.reason);
        Some(Self {
            decision: decision_of(event),
            reason: event.reason,
            protocol: event.protocol.clone().or_else(|| event.ethertype.clone().map(Cow::Owned)),
            address: event_address(event, inbound).filter(|_| name.is_none()),
            port: event.destination_port,
            name: name.map(str::to_ascii_lowercase),
            inbound,
        })
    }
}

fn decision_of(event: &PolicyEvent) -> FlowDecision {
    match event {
        event if event.is_denial() => FlowDecision::Denied,
        event if event.is_observed() => FlowDecision::WouldDeny,
        _ => FlowDecision::Allowed,
    }
}

/// The address at the other end.
pub(super) fn event_address(event: &PolicyEvent, inbound: bool) -> Option<IpAddr> {
    if inbound { event.source } else { event.destination }
}

/// Whether a Host is an address, which does not count as a name.
fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(name).parse::<IpAddr>().is_ok()
}
