//! What the egress proxy counts for a sandbox, from its creation to its end: its connections by what
//! became of them, and what was refused by reason. The kernel counts packets, and not these.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
};

use policy_common::reason::Reason;

/// Codes of reasons, from 0.
const CODES: usize = Reason::ALL[Reason::ALL.len() - 1] as usize + 1;

/// Kinds of connections, as metrics call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Judged by the SNI of its ClientHello.
    Tls,
    /// Judged by the Host of each request.
    Http,
    /// Tunnelled to an address, whatever it carries.
    Tcp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tls, Self::Http, Self::Tcp];

    const fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Allowed,
    Denied,
    /// Nobody denied it, but it could not be made.
    Failed,
}

impl Decision {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Failed];

    const fn of(reason: Reason) -> Self {
        match reason {
            Reason::NameUnresolved
            | Reason::Unreachable
            | Reason::EgressProxyFailed
            | Reason::BadResponse
            | Reason::ServerBrokeOff => Self::Failed,
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

/// The proxy's counts of one sandbox.
#[derive(Debug)]
pub struct Tally {
    /// By protocol and decision.
    connections: [[AtomicU64; Decision::ALL.len()]; Protocol::ALL.len()],
    /// By the reason's code.
    refused: [AtomicU64; CODES],
}

impl Default for Tally {
    fn default() -> Self {
        Self { connections: Default::default(), refused: array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Tally {
    /// A connection came to this end, or was let out. An HTTP connection counts once when its first
    /// request is let out, and once more for a request that is refused, which ends it.
    pub fn count(&self, protocol: Protocol, reason: Reason) {
        let decision = Decision::of(reason);
        self.connections[protocol as usize][decision as usize].fetch_add(1, Ordering::Relaxed);
        self.refuse(reason);
    }

    /// A connection that was let out before is ended by new rules, for this reason.
    pub fn refuse(&self, reason: Reason) {
        if !reason.passes() {
            self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections and requests that were refused for this reason.
    #[must_use]
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// Connections by protocol and decision; those that never happened are left out.
    pub fn connections(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of = |protocol: Protocol, decision: Decision| {
            let counter = &self.connections[protocol as usize][decision as usize];
            (protocol.label(), decision.label(), counter.load(Ordering::Relaxed))
        };
        let all = Protocol::ALL.into_iter();
        all.flat_map(move |protocol| Decision::ALL.map(|decision| of(protocol, decision)))
            .filter(|(_, _, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_one_reason() {
        let tally = Tally::default();
        tally.count(Protocol::Tls, Reason::AllowName);
        tally.count(Protocol::Tls, Reason::NameNotAllowed);
        tally.count(Protocol::Http, Reason::NameNotAllowed);
        tally.count(Protocol::Http, Reason::NameUnresolved);
        tally.refuse(Reason::NameNotAllowed);
        let refused = |reason: &&Reason| tally.refused(**reason) > 0;
        let reasons: Vec<_> = Reason::ALL.iter().filter(refused).collect();
        assert_eq!(reasons, [&Reason::NameNotAllowed, &Reason::NameUnresolved]);
        assert_eq!(tally.refused(Reason::NameNotAllowed), 3);
        let connections: Vec<_> = tally.connections().collect();
        let expected = [
            ("tls", "allowed", 1),
            ("tls", "denied", 1),
            ("http", "denied", 1),
            ("http", "failed", 1),
        ];
        assert_eq!(connections, expected);
    }
}
