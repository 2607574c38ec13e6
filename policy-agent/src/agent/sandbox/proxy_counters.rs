//! The egress proxy's counters for a sandbox, from its creation to its end: connections by
//! decision, and refusals by reason. The kernel counts packets and does not count these.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
};

use policy_common::reason::Reason;

/// Number of reason codes, starting at 0.
const REASON_CODES: usize = Reason::ALL[Reason::ALL.len() - 1] as usize + 1;

/// Protocols of connections, as labels in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionProtocol {
    /// Decided by the SNI of its ClientHello.
    Tls,
    /// Decided by the Host of each request.
    Http,
    /// Relayed to an address, regardless of the protocol inside.
    Tcp,
}

impl ConnectionProtocol {
    const ALL: [Self; 3] = [Self::Tls, Self::Http, Self::Tcp];

    const fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// The outcome of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecisionLabel {
    Allowed,
    Denied,
    /// Not denied, but not established either.
    Failed,
}

impl DecisionLabel {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Failed];

    const fn from_reason(reason: Reason) -> Self {
        match reason {
            Reason::NameUnresolved
            | Reason::Unreachable
            | Reason::EgressProxyFailed
            | Reason::BadResponse
            | Reason::ServerBrokeOff
            | Reason::SecretUnknown
            | Reason::OriginNotVerified => Self::Failed,
            reason if reason.passes() => Self::Allowed,
            _ => Self::Denied,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// The egress proxy's counters for one sandbox.
#[derive(Debug)]
pub struct SandboxProxyCounters {
    /// By protocol and decision.
    connections: [[AtomicU64; DecisionLabel::ALL.len()]; ConnectionProtocol::ALL.len()],
    /// Requests in connections that `network.rules` open, by decision.
    requests: [AtomicU64; DecisionLabel::ALL.len()],
    /// By reason code.
    refusals: [AtomicU64; REASON_CODES],
    /// By reason code: what passed because the sandbox is observed.
    would_deny: [AtomicU64; REASON_CODES],
}

impl Default for SandboxProxyCounters {
    fn default() -> Self {
        let zeros = || array::from_fn(|_| AtomicU64::new(0));
        Self {
            connections: Default::default(),
            requests: Default::default(),
            refusals: zeros(),
            would_deny: zeros(),
        }
    }
}

impl SandboxProxyCounters {
    /// Counts a connection that was allowed, refused or ended for this reason. An HTTP connection
    /// counts once when its first request is allowed, and once more for a refused request, which
    /// ends it.
    pub fn record_connection(&self, protocol: ConnectionProtocol, reason: Reason) {
        let decision = DecisionLabel::from_reason(reason);
        self.connections[protocol as usize][decision as usize].fetch_add(1, Ordering::Relaxed);
        self.record_refusal(reason);
    }

    /// Counts a request in a connection that `network.rules` open.
    pub fn record_request(&self, reason: Reason) {
        let decision = DecisionLabel::from_reason(reason);
        self.requests[decision as usize].fetch_add(1, Ordering::Relaxed);
        self.record_refusal(reason);
    }

    /// Counts a connection that is allowed because the sandbox is observed.
    pub fn record_observed_connection(&self, protocol: ConnectionProtocol) {
        let decision = DecisionLabel::Allowed;
        self.connections[protocol as usize][decision as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection or request that passed because the sandbox is observed, by the reason
    /// that would deny it.
    pub fn record_would_deny(&self, reason: Reason) {
        self.would_deny[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many connections and requests would have been refused for this reason.
    #[must_use]
    pub fn would_deny(&self, reason: Reason) -> u64 {
        self.would_deny[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts a refusal of a connection that was allowed before and is ended by a policy change.
    pub fn record_refusal(&self, reason: Reason) {
        if !reason.passes() {
            self.refusals[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many connections and requests were refused for this reason.
    #[must_use]
    pub fn refusals(&self, reason: Reason) -> u64 {
        self.refusals[reason as usize].load(Ordering::Relaxed)
    }

    /// Returns the requests by outcome, without those that are zero.
    pub fn request_counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let read_counter = |decision: DecisionLabel| {
            (decision.label(), self.requests[decision as usize].load(Ordering::Relaxed))
        };
        DecisionLabel::ALL.into_iter().map(read_counter).filter(|(_, count)| *count > 0)
    }

    /// Returns the connections by protocol and outcome, without those that are zero.
    pub fn connection_counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let read_counter = |protocol: ConnectionProtocol, decision: DecisionLabel| {
            let counter = &self.connections[protocol as usize][decision as usize];
            (protocol.label(), decision.label(), counter.load(Ordering::Relaxed))
        };
        let protocols = ConnectionProtocol::ALL.into_iter();
        protocols
            .flat_map(move |protocol| {
                DecisionLabel::ALL.map(|decision| read_counter(protocol, decision))
            })
            .filter(|(_, _, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_one_reason() {
        let counters = SandboxProxyCounters::default();
        counters.record_connection(ConnectionProtocol::Tls, Reason::AllowName);
        counters.record_connection(ConnectionProtocol::Tls, Reason::NameNotAllowed);
        counters.record_connection(ConnectionProtocol::Http, Reason::NameNotAllowed);
        counters.record_connection(ConnectionProtocol::Http, Reason::NameUnresolved);
        counters.record_refusal(Reason::NameNotAllowed);
        let refused = |reason: &&Reason| counters.refusals(**reason) > 0;
        let reasons: Vec<_> = Reason::ALL.iter().filter(refused).collect();
        assert_eq!(reasons, [&Reason::NameNotAllowed, &Reason::NameUnresolved]);
        assert_eq!(counters.refusals(Reason::NameNotAllowed), 3);
        let connections: Vec<_> = counters.connection_counts().collect();
        let expected = [
            ("tls", "allowed", 1),
            ("tls", "denied", 1),
            ("http", "denied", 1),
            ("http", "failed", 1),
        ];
        assert_eq!(connections, expected);
    }
}
