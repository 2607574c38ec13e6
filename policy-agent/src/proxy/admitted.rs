//! A sandbox's connection, from when it is accepted until it is over.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    context::ProxyContext,
    decision::{ConnectionDecision, ConnectionEnd, MatchKey, decide_connection},
    decision_limiter::DecisionPermit,
    proxy_metrics::ConnectionProtocol,
    sandbox_proxy::{ConnectionAddresses, SandboxProxy},
    socket::{SharedSocket, wait_for_reset},
};
use crate::agent::ActivePolicy;

/// A connection that its door knows of. It is over when this is dropped.
pub struct AdmittedConnection {
    pub(super) sandbox_proxy: Arc<SandboxProxy>,
    pub(super) id: u64,
    /// The sandbox's side.
    pub client: SharedSocket,
    pub(super) addresses: ConnectionAddresses,
    /// Until it is let out or refused.
    pub(super) decision_permit: Mutex<DecisionPermit>,
}

/// A connection that is let out.
pub struct AllowDecision {
    /// The rules that let it out.
    pub active_policy: Arc<ActivePolicy>,
    /// What decided.
    pub decision: ConnectionDecision,
}

impl AdmittedConnection {
    /// What it is served with.
    pub fn context(&self) -> &ProxyContext {
        &self.sandbox_proxy.context
    }

    /// Where it was to go.
    pub const fn original_destination(&self) -> SocketAddr {
        self.addresses.1
    }

    /// The rules in force.
    pub fn active_policy(&self) -> Arc<ActivePolicy> {
        self.sandbox_proxy.active_policy()
    }

    /// Judges the connection, by rules that are in force when this returns. If they let it out and
    /// later ones do not, it is closed.
    pub fn decide(&self, match_key: &MatchKey) -> Result<AllowDecision, ConnectionEnd> {
        loop {
            let active_policy = self.sandbox_proxy.active_policy();
            let explanation =
                decide_connection(&active_policy, self.original_destination(), match_key);
            if !explanation.allowed {
                return Err(explanation.into());
            }
            match self.sandbox_proxy.record_match_key(self.id, &active_policy, match_key) {
                Some(true) => {
                    return Ok(AllowDecision { active_policy, decision: explanation.into() });
                }
                Some(false) => return Err(ConnectionEnd::Closed),
                None => {} // newer rules
            }
        }
    }

    /// Enters the other side, which is reset together with the client.
    pub fn attach_upstream(&self, upstream: &SharedSocket) -> Result<(), ConnectionEnd> {
        if self.sandbox_proxy.attach_upstream(self.id, upstream) {
            Ok(())
        } else {
            Err(ConnectionEnd::Closed)
        }
    }

    /// Does something as long as there is a client.
    pub async fn while_client_connected<T>(
        &self,
        work: impl Future<Output = Result<T, ConnectionEnd>>,
    ) -> Result<T, ConnectionEnd> {
        tokio::select! {
            done = work => done,
            () = wait_for_reset(&self.client) => Err(ConnectionEnd::Closed),
        }
    }

    /// Counts and reports that the connection is let out.
    pub fn record_allowed(
        &self,
        protocol: ConnectionProtocol,
        name: Option<&str>,
        decision: ConnectionDecision,
    ) {
        self.release_decision_permit();
        self.sandbox_proxy.proxy_counters.record_connection(protocol, decision.reason);
        if self.context().event_buffer.wants_flows() {
            self.report_event(name, decision);
        }
    }

    /// Counts and reports that the connection is refused.
    pub fn record_refused(
        &self,
        protocol: ConnectionProtocol,
        name: Option<&str>,
        decision: ConnectionDecision,
    ) {
        self.release_decision_permit();
        self.sandbox_proxy.proxy_counters.record_connection(protocol, decision.reason);
        self.report_event(name, decision);
    }

    /// The door may take another connection in its place.
    fn release_decision_permit(&self) {
        *self.decision_permit.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn report_event(&self, name: Option<&str>, decision: ConnectionDecision) {
        self.sandbox_proxy.report_event(self.addresses, name.map(str::to_owned), decision);
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        self.sandbox_proxy.remove_connection(self.id);
    }
}
