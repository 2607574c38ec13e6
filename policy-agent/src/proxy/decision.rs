//! Applies the policy to a connection.

use std::{net::SocketAddr, sync::Arc};

use policy_common::reason::Reason;

use crate::{
    agent::ActivePolicy,
    policy::{
        Explanation, FlowDestination, RequestedName, RuleRef,
        evaluate::{IPPROTO_TCP, is_judged_by_name},
        evaluate_packet,
    },
};

/// How the proxy handles a connection to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConnectionHandling {
    /// Decide by the requested name.
    ByName,
    /// Relay it to the address through the egress proxy.
    ViaEgressProxy(Explanation),
    /// Refuse it: under this policy the kernel does not redirect such connections.
    Unexpected(Explanation),
}

/// Classifies a connection before anything is read from it.
pub(super) fn classify_connection(
    active_policy: &ActivePolicy,
    destination: SocketAddr,
) -> ConnectionHandling {
    let floor = &*active_policy.floor;
    if active_policy.policy.egress_proxy().is_none() {
        // The kernel has already matched the address against the sandbox's lists, which may be
        // long.
        let port = Some(destination.port());
        let named = is_judged_by_name(&active_policy.policy, IPPROTO_TCP, port);
        let address = destination.ip();
        // The gateway may listen at the host's own addresses, even where the floor denies packets
        // to them.
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

/// The first packet of a connection to an address.
pub(super) const fn first_packet(destination: SocketAddr) -> FlowDestination {
    let (address, port) = (destination.ip(), Some(destination.port()));
    FlowDestination { address, protocol: IPPROTO_TCP, port, host: None }
}

fn unexpected_explanation() -> Explanation {
    let reason = Reason::ProxyUnavailable;
    Explanation {
        allowed: false,
        would_deny: false,
        reason,
        line: reason.line(),
        rule: None,
        by_name: false,
        tunnel: false,
    }
}

/// What a connection is decided by, both initially and whenever the policy changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MatchKey {
    /// Its destination address.
    Address,
    /// The name it requests. `None` if it requests none.
    Name(Option<Arc<RequestedName>>),
}

impl MatchKey {
    /// The requested name.
    pub(super) fn name(&self) -> Option<&RequestedName> {
        match self {
            Self::Name(name) => name.as_deref(),
            Self::Address => None,
        }
    }
}

/// Decides whether a connection is allowed.
pub(super) fn decide_connection(
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
        // The policy has changed, and now requires another kind of match key for this connection.
        _ => unexpected_explanation(),
    }
}

/// Why a connection is allowed or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionDecision {
    /// The reason.
    pub reason: Reason,
    /// The rule that matched, if any.
    pub rule: Option<RuleRef>,
    /// Whether the connection is allowed only because the sandbox is observed.
    pub would_deny: bool,
}

impl From<Reason> for ConnectionDecision {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None, would_deny: false }
    }
}

impl From<Explanation> for ConnectionDecision {
    fn from(explanation: Explanation) -> Self {
        let Explanation { reason, rule, would_deny, .. } = explanation;
        Self { reason, rule, would_deny }
    }
}

/// Why a connection ends before it is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    /// The client has closed it, or the agent has reset it. There is no one to respond to.
    Closed,
    /// The policy or an error refuses it.
    Refused(ConnectionDecision),
}

impl<G: Into<ConnectionDecision>> From<G> for ConnectionEnd {
    fn from(decision: G) -> Self {
        Self::Refused(decision.into())
    }
}
