//! The proxy of one sandbox: its listeners, its active policy and its connections.
//!
//! A connection is recorded here before its verdict takes effect, and decided again when the policy
//! changes. So no connection is allowed by an old policy once a new one is in force.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use policy_common::{rate_limit::EVENT_RATE_LIMIT, reason::Reason};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::AbortHandle,
    time::sleep,
};

use super::{
    admitted::AdmittedConnection,
    context::ProxyContext,
    decision::{ConnectionDecision, MatchKey, decide_connection},
    decision_limiter::{DecisionLimiter, DecisionPermit},
    intercept::{ClientTls, SandboxInterception, has_rule},
    lookup_limiter::LookupLimiter,
    proxy_metrics::ConnectionProtocol,
    serve_connection,
    socket::{CloseProgress, SharedSocket, close_progress, reset_connection},
    tls_alert::TlsAlert,
};
use crate::{
    agent::{ActivePolicy, SandboxProxyCounters},
    events::PolicyEvent,
    policy::{
        SandboxId, Socks5Proxy,
        evaluate::{HTTP_PORT, HTTPS_PORT},
    },
    traffic_workers::WorkerLoad,
};

/// Pause after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);
/// Minimum time between two log lines about failed accepts.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Connections above a sandbox's limit that may receive a TLS alert at the same time. Each holds a
/// file descriptor for a moment. Others are reset.
const MAX_PENDING_ALERTS: usize = 8;

/// The proxy of one sandbox.
pub(super) struct SandboxProxy {
    /// Shared by all sandboxes.
    pub context: Arc<ProxyContext>,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The counters of this sandbox.
    pub proxy_counters: Arc<SandboxProxyCounters>,
    state: Mutex<SandboxProxyState>,
    /// Token bucket of [`EVENT_RATE_LIMIT`]: one sandbox must not flood the event log.
    event_bucket: AtomicU64,
    opened_at: Instant,
    serving_since: Timestamp,
    /// Limits how many of its connections are being decided at the same time.
    pub(super) decision_limiter: DecisionLimiter,
    /// Limits how many names are being looked up for it at the same time.
    pub(super) lookup_limiter: LookupLimiter,
    /// Permits to send a TLS alert to a connection above the limit.
    alert_permits: Arc<Semaphore>,
    /// Connections to names with `network.rules`.
    pub(super) interception: SandboxInterception,
}

struct SandboxProxyState {
    active_policy: Arc<ActivePolicy>,
    connections: HashMap<u64, TrackedConnection>,
    next_id: u64,
    accept_tasks: Vec<AbortHandle>,
    closed: bool,
}

/// Source and original destination of a connection.
pub(super) type ConnectionAddresses = (SocketAddr, SocketAddr);

/// Why a connection is not admitted.
enum AdmissionError {
    /// The sandbox or the whole proxy has reached its maximum number of connections.
    Full(TcpStream),
    /// The proxy of this sandbox is closed.
    Closed,
}

/// An open connection.
struct TrackedConnection {
    addresses: ConnectionAddresses,
    /// `None` until the connection is decided.
    match_key: Option<MatchKey>,
    client: Weak<TcpStream>,
    upstream: Weak<TcpStream>,
}

impl TrackedConnection {
    fn reset(&self) {
        for socket in [&self.client, &self.upstream] {
            if let Some(socket) = socket.upgrade() {
                reset_connection(&socket);
            }
        }
    }
}

impl SandboxProxy {
    /// Creates a proxy without listeners.
    pub(super) fn new(
        context: Arc<ProxyContext>,
        sandbox: SandboxId,
        proxy_counters: Arc<SandboxProxyCounters>,
        active_policy: Arc<ActivePolicy>,
    ) -> Self {
        let state = SandboxProxyState {
            active_policy,
            connections: HashMap::new(),
            next_id: 0,
            accept_tasks: Vec::new(),
            closed: false,
        };
        Self {
            context,
            sandbox,
            proxy_counters,
            state: Mutex::new(state),
            event_bucket: AtomicU64::new(0),
            opened_at: Instant::now(),
            serving_since: Timestamp::now(),
            decision_limiter: DecisionLimiter::default(),
            lookup_limiter: LookupLimiter::default(),
            alert_permits: Arc::new(Semaphore::new(MAX_PENDING_ALERTS)),
            interception: SandboxInterception::default(),
        }
    }

    /// Serves the connections of a listener until the proxy is closed.
    pub(super) fn spawn_accept_loop(self: &Arc<Self>, listener: impl SandboxListener) {
        let task = tokio::spawn(accept_loop(Arc::clone(self), listener));
        let mut state = self.lock();
        if state.closed {
            task.abort();
        }
        state.accept_tasks.push(task.abort_handle());
    }

    /// The TLS configurations for names with `network.rules`.
    ///
    /// # Errors
    /// The sandbox's authority can neither be read nor written.
    pub(super) fn client_tls(&self) -> anyhow::Result<Arc<ClientTls>> {
        self.interception.client_tls(&self.context.interception, &self.sandbox)
    }

    /// Makes the authority of a sandbox with rules, before its first connection needs it.
    pub(super) fn prepare_interception(&self) {
        if self.active_policy().policy.header_rules().is_empty() {
            return;
        }
        if let Err(error) = self.client_tls() {
            tracing::error!(sandbox = %self.sandbox, "names with network.rules are refused: {error:#}");
        }
    }

    /// Since when connections are served.
    pub(super) const fn serving_since(&self) -> Timestamp {
        self.serving_since
    }

    /// The policy in force.
    pub(super) fn active_policy(&self) -> Arc<ActivePolicy> {
        Arc::clone(&self.lock().active_policy)
    }

    /// The number of open connections.
    pub(super) fn active_connections(&self) -> usize {
        self.lock().connections.len()
    }

    /// Puts a new policy in force. When this returns, every connection that it does not allow is
    /// reset.
    pub(super) fn update_policy(&self, active_policy: &Arc<ActivePolicy>) {
        let (replaced, decided) = {
            let mut state = self.lock();
            let replaced = std::mem::replace(&mut state.active_policy, Arc::clone(active_policy));
            let decided = |(id, connection): (&u64, &TrackedConnection)| {
                let upstream = Weak::clone(&connection.upstream);
                Some((*id, connection.match_key.clone()?, connection.addresses, upstream))
            };
            (replaced, state.connections.iter().filter_map(decided).collect::<Vec<_>>())
        };
        if Arc::ptr_eq(&replaced, active_policy) {
            return;
        }
        // Connections decided from here on use the new policy, so only those decided before need a
        // check.
        let egress_proxy_changed =
            replaced.policy.egress_proxy() != active_policy.policy.egress_proxy();
        let has_rules =
            [&replaced, active_policy].iter().any(|it| !it.policy.header_rules().is_empty());
        let lists_changed = replaced.floor.operator_lists() != active_policy.floor.operator_lists();
        for (id, match_key, addresses, upstream) in decided {
            let explanation = decide_connection(active_policy, addresses.1, &match_key);
            let upstream = upstream.upgrade().filter(|_| lists_changed);
            let upstream_denied =
                upstream.is_some_and(|upstream| self.is_upstream_denied(active_policy, &upstream));
            // Whether a connection is opened is decided at its beginning.
            let opened_otherwise = has_rules
                && addresses.1.port() == HTTPS_PORT
                && has_rule(&replaced, &match_key) != has_rule(active_policy, &match_key);
            if explanation.allowed && !egress_proxy_changed && !upstream_denied && !opened_otherwise
            {
                continue;
            }
            if self.reset_if_matched_by(id, &match_key) && !explanation.allowed {
                self.proxy_counters.record_refusal(explanation.reason);
                self.report_event(
                    addresses,
                    match_key.name().map(|name| name.as_str().to_owned()),
                    explanation.into(),
                );
            }
        }
    }

    /// Resets a connection if its match key is still this one.
    fn reset_if_matched_by(&self, id: u64, match_key: &MatchKey) -> bool {
        let mut state = self.lock();
        let same =
            |connection: &mut TrackedConnection| connection.match_key.as_ref() == Some(match_key);
        let removed =
            state.connections.get_mut(&id).is_some_and(same).then(|| state.connections.remove(&id));
        drop(state);
        removed.flatten().map(|connection| self.terminate(&connection)).is_some()
    }

    /// Resets all connections and stops accepting new ones.
    pub(super) fn close(&self) {
        let (connections, accept_tasks) = {
            let mut state = self.lock();
            state.closed = true;
            (std::mem::take(&mut state.connections), std::mem::take(&mut state.accept_tasks))
        };
        for accept_task in accept_tasks {
            accept_task.abort();
        }
        connections.values().for_each(|connection| self.terminate(connection));
    }

    fn terminate(&self, connection: &TrackedConnection) {
        self.context.metrics.active_connections.dec();
        connection.reset();
    }

    /// Admits a connection unless a limit is reached.
    fn admit(
        self: &Arc<Self>,
        client: TcpStream,
        addresses: ConnectionAddresses,
        decision_permit: DecisionPermit,
        worker_load: WorkerLoad,
    ) -> Result<AdmittedConnection, AdmissionError> {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            reset_connection(&client);
            return Err(AdmissionError::Closed);
        }
        if state.connections.len() >= self.context.max_connections_per_sandbox
            || self.context.metrics.active_connections.get() >= self.context.max_connections
        {
            return Err(AdmissionError::Full(client));
        }
        let client = Arc::new(client);
        let id = state.next_id;
        state.next_id += 1;
        let connection = TrackedConnection {
            addresses,
            match_key: None,
            client: Arc::downgrade(&client),
            upstream: Weak::new(),
        };
        state.connections.insert(id, connection);
        drop(state);
        self.context.metrics.active_connections.inc();
        Ok(AdmittedConnection {
            sandbox_proxy: Arc::clone(self),
            id,
            client,
            addresses,
            decision_permit: Mutex::new(decision_permit),
            _worker_load: worker_load,
        })
    }

    /// Refuses a connection above the limit.
    fn reject_excess(&self, client: TcpStream, addresses: ConnectionAddresses) {
        let reason = Reason::TooManyConnections;
        self.proxy_counters.record_connection(expected_protocol(addresses.1), reason);
        self.report_event(addresses, None, reason.into());
        let speaks_tls =
            addresses.1.port() == HTTPS_PORT && self.active_policy().policy.has_domains();
        match Arc::clone(&self.alert_permits).try_acquire_owned() {
            Ok(permit) if speaks_tls => {
                let timeouts = self.context.timeouts;
                tokio::spawn(async move {
                    TlsAlert::without_client_hello(reason).send(&client, timeouts).await;
                    // Nothing counts this connection any more.
                    if close_progress(&client) != CloseProgress::Ended {
                        reset_connection(&client);
                    }
                    drop(permit);
                });
            }
            _ => reset_connection(&client),
        }
    }

    /// Records what a connection was decided by under this policy. Returns `None` if a newer policy
    /// is in force, and `Some(false)` if the connection is closed.
    pub(super) fn record_match_key(
        &self,
        id: u64,
        active_policy: &Arc<ActivePolicy>,
        match_key: &MatchKey,
    ) -> Option<bool> {
        let mut state = self.lock();
        if !Arc::ptr_eq(&state.active_policy, active_policy) {
            return None;
        }
        let connection = state.connections.get_mut(&id);
        let recorded = connection.map(|connection| connection.match_key = Some(match_key.clone()));
        Some(recorded.is_some())
    }

    /// Records the upstream of a connection. Returns false if the connection is closed, or if a new
    /// floor denies the upstream's address.
    pub(super) fn attach_upstream(&self, id: u64, upstream: &SharedSocket) -> bool {
        let mut state = self.lock();
        if self.is_upstream_denied(&state.active_policy, upstream) {
            return false;
        }
        let connection = state.connections.get_mut(&id);
        connection.map(|connection| connection.upstream = Arc::downgrade(upstream)).is_some()
    }

    /// Whether the operator's lists deny the address that an upstream was dialed at.
    fn is_upstream_denied(&self, active_policy: &ActivePolicy, upstream: &TcpStream) -> bool {
        // A connection that has ended reaches nothing.
        let Ok(address) = self.context.network.dialed_address(upstream) else { return false };
        let floor = active_policy.floor.operator_lists();
        match active_policy.policy.egress_proxy() {
            Some(_) => !Socks5Proxy::may_be_dialed(&floor, address),
            None => !floor.admits(address),
        }
    }

    /// Removes a connection that has ended.
    pub(super) fn remove_connection(&self, id: u64) {
        if self.lock().connections.remove(&id).is_some() {
            self.context.metrics.active_connections.dec();
        }
    }

    /// Records the decision on a connection, and reports it as an event if somebody wants it and the
    /// rate limit for events is not exceeded.
    pub(super) fn report_event(
        &self,
        addresses: ConnectionAddresses,
        name: Option<String>,
        decision: ConnectionDecision,
    ) {
        let event_buffer = &self.context.event_buffer;
        let ConnectionDecision { reason, rule, would_deny } = decision;
        let sandbox = self.sandbox.clone();
        let event =
            PolicyEvent::from_connection(sandbox, addresses.0, addresses.1, name, reason, rule);
        let event = if would_deny { event.observed() } else { event };
        let is_wanted = event.concerns_denial() || event_buffer.wants_flows();
        let now = u64::try_from(self.opened_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let take = |bucket| EVENT_RATE_LIMIT.take_token(bucket, now);
        let is_limited =
            || self.event_bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err();
        if !is_wanted {
            event_buffer.record().observe(&event);
        } else if is_limited() {
            event_buffer.record().observe(&event);
            event_buffer.add_lost(1);
        } else {
            event_buffer.push(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, SandboxProxyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source of connections.
pub(super) trait SandboxListener: Send + 'static {
    /// Accepts the next connection. Returns its socket and source address.
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl SandboxListener for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// Accepts connections until the task is aborted. No error ends the loop: a shortage of resources
/// may pass, and a failed connection says nothing about the next one.
async fn accept_loop(sandbox_proxy: Arc<SandboxProxy>, listener: impl SandboxListener) {
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = listener.accept().await.and_then(|(client, source)| {
            let destination = sandbox_proxy.context.network.original_destination(&client)?;
            Ok((client, (source, destination)))
        });
        let error = match accepted {
            Ok((client, addresses)) => {
                let decision_permit = sandbox_proxy.decision_limiter.acquire().await;
                let proxy = Arc::clone(&sandbox_proxy);
                let admit = move |client, worker_load| {
                    admit_and_serve(&proxy, client, addresses, decision_permit, worker_load);
                };
                sandbox_proxy.context.workers.serve_connection(client, admit);
                continue;
            }
            Err(error) => error,
        };
        if logged.is_none_or(|logged| logged.elapsed() >= ACCEPT_LOG_INTERVAL) {
            tracing::warn!(sandbox = %sandbox_proxy.sandbox, "cannot take a connection: {error}");
            logged = Some(Instant::now());
        }
        sleep(ACCEPT_RETRY_DELAY).await;
    }
}

fn admit_and_serve(
    sandbox_proxy: &Arc<SandboxProxy>,
    client: TcpStream,
    addresses: ConnectionAddresses,
    decision_permit: DecisionPermit,
    worker_load: WorkerLoad,
) {
    match sandbox_proxy.admit(client, addresses, decision_permit, worker_load) {
        Ok(admitted) => serve_connection::spawn_serve(admitted),
        Err(AdmissionError::Closed) => {}
        Err(AdmissionError::Full(client)) => sandbox_proxy.reject_excess(client, addresses),
    }
}

/// The protocol under which a connection would have been decided.
const fn expected_protocol(destination: SocketAddr) -> ConnectionProtocol {
    if destination.port() == HTTP_PORT { ConnectionProtocol::Http } else { ConnectionProtocol::Tls }
}
