//! The rules, applied to what a connection asks for.

use std::{net::SocketAddr, sync::Arc};

use policy_common::reason::Reason;

use crate::{
    agent::ActivePolicy,
    policy::{Explanation, FlowDestination, RuleRef, evaluate_packet},
};

/// IP protocol number of TCP.
const IPPROTO_TCP: u8 = 6;
/// Where line 7 judges by the Host of requests.
pub const HTTP_PORT: u16 = 80;
/// Where line 7 judges by the SNI.
pub const HTTPS_PORT: u16 = 443;

/// What becomes of a connection to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionHandling {
    /// It is judged by the name that it asks for.
    ByName,
    /// The tunnel carries it to the address.
    ViaEgressProxy(Explanation),
    /// It does not belong here: the kernel hands nothing like it over under these rules.
    Unexpected(Explanation),
}

/// What becomes of a connection, before anything is read from it.
pub fn classify_connection(
    active_policy: &ActivePolicy,
    destination: SocketAddr,
) -> ConnectionHandling {
    let floor = &*active_policy.floor;
    if active_policy.policy.egress_proxy().is_none() {
        // The kernel has looked into the sandbox's lists already, which may be long.
        let named = matches!(destination.port(), HTTP_PORT | HTTPS_PORT)
            && active_policy.policy.has_domains();
        let address = destination.ip();
        // The gateway may listen at the host's own addresses, whatever the packets may do there.
        let named = named && (floor.admits(address) || floor.is_denied_host_address(address));
        return if named {
            ConnectionHandling::ByName
        } else {
            ConnectionHandling::Unexpected(unexpected_explanation())
        };
    }
    let packet = evaluate_packet(&active_policy.policy, floor, &first_packet(destination));
    match packet.reason {
        Reason::ByName => ConnectionHandling::ByName,
        _ if packet.tunnel => ConnectionHandling::ViaEgressProxy(packet),
        reason if !reason.passes() => ConnectionHandling::Unexpected(packet),
        _ => ConnectionHandling::Unexpected(unexpected_explanation()),
    }
}

/// The packet that a connection to an address begins with.
pub const fn first_packet(destination: SocketAddr) -> FlowDestination {
    let (address, port) = (destination.ip(), Some(destination.port()));
    FlowDestination { address, protocol: IPPROTO_TCP, port, host: None }
}

fn unexpected_explanation() -> Explanation {
    let reason = Reason::ProxyUnavailable;
    Explanation {
        allowed: false,
        reason,
        line: reason.line(),
        rule: None,
        by_name: false,
        tunnel: false,
    }
}

/// What a connection is judged by, at first and whenever the rules change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchKey {
    /// The address that it goes to.
    Address,
    /// The name that it asks for, or that it asks for none.
    Name(Option<Arc<str>>),
}

impl MatchKey {
    /// The name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => name.as_deref(),
            Self::Address => None,
        }
    }
}

/// Whether a connection is let out.
pub fn decide_connection(
    active_policy: &ActivePolicy,
    destination: SocketAddr,
    match_key: &MatchKey,
) -> Explanation {
    match (classify_connection(active_policy, destination), match_key) {
        (ConnectionHandling::ByName, MatchKey::Name(name)) => {
            active_policy.evaluate_by_name(name.as_deref(), destination.ip())
        }
        (ConnectionHandling::ViaEgressProxy(explanation), MatchKey::Address)
        | (ConnectionHandling::Unexpected(explanation), _) => explanation,
        // The rules have changed: what it was judged by is not what it would be judged by now.
        _ => unexpected_explanation(),
    }
}

/// Why a connection is let out or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionDecision {
    /// The reason.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<RuleRef>,
}

impl From<Reason> for ConnectionDecision {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None }
    }
}

impl From<Explanation> for ConnectionDecision {
    fn from(explanation: Explanation) -> Self {
        Self { reason: explanation.reason, rule: explanation.rule }
    }
}

/// Why a connection ends before it is let out.
#[derive(Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Its client is gone, or the agent closed it: there is nobody to tell.
    Closed,
    /// It is refused.
    Refused(ConnectionDecision),
}

impl<G: Into<ConnectionDecision>> From<G> for ConnectionEnd {
    fn from(decision: G) -> Self {
        Self::Refused(decision.into())
    }
}
