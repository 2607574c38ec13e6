//! A sandbox's connection from its admission to its end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use policy_common::reason::Reason;

use super::{
    closing::ClosingConnection,
    context::ProxyContext,
    decision::{ConnectionDecision, ConnectionEnd, MatchKey, decide_connection},
    decision_limiter::DecisionPermit,
    proxy_metrics::ConnectionProtocol,
    sandbox_proxy::{ConnectionAddresses, SandboxProxy},
    socket::{SharedSocket, wait_for_reset},
};
use crate::{agent::ActivePolicy, policy::RequestedName, traffic_workers::WorkerLoad};

/// A connection that its [`SandboxProxy`] tracks, until it is dropped and its socket has closed.
pub(super) struct AdmittedConnection {
    pub(super) sandbox_proxy: Arc<SandboxProxy>,
    pub(super) id: u64,
    /// The sandbox's side of the connection.
    pub client: SharedSocket,
    pub(super) addresses: ConnectionAddresses,
    /// Held until the connection is allowed or refused.
    pub(super) decision_permit: Mutex<DecisionPermit>,
    /// Counts the connection as this worker's.
    pub(super) _worker_load: WorkerLoad,
}

/// The verdict that allows a connection.
pub(super) struct AllowDecision {
    /// The policy that allows it.
    pub active_policy: Arc<ActivePolicy>,
    /// The reason and the rule.
    pub decision: ConnectionDecision,
}

impl AdmittedConnection {
    /// The context shared by all connections.
    pub(super) fn context(&self) -> &ProxyContext {
        &self.sandbox_proxy.context
    }

    /// The destination that the sandbox connected to.
    pub(super) const fn original_destination(&self) -> SocketAddr {
        self.addresses.1
    }

    /// The policy in force.
    pub(super) fn active_policy(&self) -> Arc<ActivePolicy> {
        self.sandbox_proxy.active_policy()
    }

    /// Decides on the connection by the policy that is in force when this returns. If a later
    /// policy does not allow it any more, the connection is reset.
    pub(super) fn decide(&self, match_key: &MatchKey) -> Result<AllowDecision, ConnectionEnd> {
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
                None => {} // a newer policy is in force
            }
        }
    }

    /// Registers the upstream socket, which is then reset together with the client's.
    pub(super) fn attach_upstream(&self, upstream: &SharedSocket) -> Result<(), ConnectionEnd> {
        if self.sandbox_proxy.attach_upstream(self.id, upstream) {
            Ok(())
        } else {
            Err(ConnectionEnd::Closed)
        }
    }

    /// Runs `work` until it completes or the client's connection is reset.
    pub(super) async fn while_client_connected<T>(
        &self,
        work: impl Future<Output = Result<T, ConnectionEnd>>,
    ) -> Result<T, ConnectionEnd> {
        tokio::select! {
            done = work => done,
            () = wait_for_reset(&self.client) => Err(ConnectionEnd::Closed),
        }
    }

    /// Counts the connection as allowed and records it.
    pub(super) fn record_allowed(
        &self,
        protocol: ConnectionProtocol,
        name: Option<&RequestedName>,
        decision: ConnectionDecision,
    ) {
        self.release_decision_permit();
        let counters = &self.sandbox_proxy.proxy_counters;
        if decision.would_deny {
            counters.record_observed_connection(protocol);
            counters.record_would_deny(decision.reason);
        } else {
            counters.record_connection(protocol, decision.reason);
        }
        self.report_event(name, decision);
    }

    /// Records that another request of the connection is allowed, by another name.
    pub(super) fn record_next_name(
        &self,
        name: Option<&RequestedName>,
        decision: ConnectionDecision,
    ) {
        if decision.would_deny {
            self.sandbox_proxy.proxy_counters.record_would_deny(decision.reason);
        }
        self.report_event(name, decision);
    }

    /// Counts a request in a connection that the proxy has opened.
    pub(super) fn record_request(&self, reason: Reason) {
        self.sandbox_proxy.proxy_counters.record_request(reason);
    }

    /// Counts such a request as refused and reports it. The connection stays allowed.
    pub(super) fn record_refused_request(
        &self,
        name: &RequestedName,
        decision: ConnectionDecision,
    ) {
        self.record_request(decision.reason);
        self.report_event(Some(name), decision);
    }

    /// Counts the connection as refused and reports it.
    pub(super) fn record_refused(
        &self,
        protocol: ConnectionProtocol,
        name: Option<&RequestedName>,
        decision: ConnectionDecision,
    ) {
        self.release_decision_permit();
        self.sandbox_proxy.proxy_counters.record_connection(protocol, decision.reason);
        self.report_event(name, decision);
    }

    /// Lets the next connection of the sandbox be decided.
    pub(super) fn release_decision_permit(&self) {
        *self.decision_permit.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn report_event(&self, name: Option<&RequestedName>, decision: ConnectionDecision) {
        self.sandbox_proxy.report_event(
            self.addresses,
            name.map(|name| name.as_str().to_owned()),
            decision,
        );
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        let sandbox_proxy = Arc::clone(&self.sandbox_proxy);
        ClosingConnection::new(sandbox_proxy, self.id, Arc::clone(&self.client)).finish();
    }
}
