//! What the proxy counts.

use policy_common::reason::Reason;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::policy::SandboxId;

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

const DECISIONS: [&str; 3] = ["allowed", "denied", "failed"];

/// `failed`: nobody denied it, but it could not be made.
const fn decision(reason: Reason) -> &'static str {
    match reason {
        Reason::NameUnresolved | Reason::Unreachable | Reason::EgressProxyFailed => "failed",
        reason if reason.passes() => "allowed",
        _ => "denied",
    }
}

/// Labels of a count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    sandbox: String,
    protocol: &'static str,
    decision: &'static str,
}

/// The proxy's metrics. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Connections by what became of them. An HTTP connection counts once when its first request
    /// is let out, and once more for a request that is refused, which ends it.
    pub connections: Family<Labels, Counter>,
    /// Connections that there are.
    pub active: Gauge,
}

impl Counts {
    /// A connection of the sandbox came to this end, or was let out.
    pub fn count(&self, sandbox: &SandboxId, protocol: Protocol, reason: Reason) {
        let labels = labels(sandbox, protocol, decision(reason));
        self.connections.get_or_create(&labels).inc();
    }

    /// The sandbox has no door any more.
    pub fn forget(&self, sandbox: &SandboxId) {
        for protocol in Protocol::ALL {
            for decision in DECISIONS {
                self.connections.remove(&labels(sandbox, protocol, decision));
            }
        }
    }
}

fn labels(sandbox: &SandboxId, protocol: Protocol, decision: &'static str) -> Labels {
    Labels { sandbox: sandbox.to_string(), protocol: protocol.label(), decision }
}
