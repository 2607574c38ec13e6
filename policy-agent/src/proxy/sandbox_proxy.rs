//! The door of one sandbox: its listeners, the rules in force, and the connections that there are.
//!
//! A connection is entered here before it is judged, and judged again when the rules change: one
//! that is let out by old rules after new ones are in force cannot be.

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
    decision::{ConnectionDecision, HTTP_PORT, HTTPS_PORT, MatchKey, decide_connection},
    decision_limiter::{DecisionLimiter, DecisionPermit},
    proxy_metrics::ConnectionProtocol,
    serve_connection,
    socket::{SharedSocket, reset_connection},
    tls_alert::TlsAlert,
};
use crate::{
    agent::{ActivePolicy, SandboxProxyCounters},
    events::PolicyEvent,
    policy::SandboxId,
};

/// How long to wait after an error before the next connection is asked for.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);
/// How often errors are logged.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Connections beyond those that a sandbox may have, which are told why they are refused. Each takes
/// a file descriptor for a moment; others are reset.
const MAX_PENDING_ALERTS: usize = 8;

/// A sandbox's door.
pub struct SandboxProxy {
    /// What its connections are served with.
    pub context: Arc<ProxyContext>,
    /// Whose it is.
    pub sandbox: SandboxId,
    /// What is counted for it.
    pub proxy_counters: Arc<SandboxProxyCounters>,
    state: Mutex<SandboxProxyState>,
    /// Bucket of [`EVENTS`]: a sandbox must not flood the log of events.
    event_bucket: AtomicU64,
    opened_at: Instant,
    /// How many of its connections are judged at a time.
    pub(super) decision_limiter: DecisionLimiter,
    /// How many connections more may be told that there are too many.
    alert_permits: Arc<Semaphore>,
}

struct SandboxProxyState {
    active_policy: Arc<ActivePolicy>,
    connections: HashMap<u64, TrackedConnection>,
    next_id: u64,
    accept_tasks: Vec<AbortHandle>,
    closed: bool,
}

/// Where a connection comes from, and where it was to go.
pub type ConnectionAddresses = (SocketAddr, SocketAddr);

/// Why a connection is not taken.
enum AdmissionError {
    /// There are as many as there may be.
    Full(TcpStream),
    /// The door is closed.
    Closed,
}

/// A connection that there is.
struct TrackedConnection {
    addresses: ConnectionAddresses,
    /// `None`: it is not judged yet.
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
    /// A door without listeners.
    pub fn new(
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
            decision_limiter: DecisionLimiter::default(),
            alert_permits: Arc::new(Semaphore::new(MAX_PENDING_ALERTS)),
        }
    }

    /// Serves what comes out of a listener, until the door is closed.
    pub fn spawn_accept_loop(self: &Arc<Self>, listener: impl SandboxListener) {
        let task = tokio::spawn(accept_loop(Arc::clone(self), listener));
        let mut state = self.lock();
        if state.closed {
            task.abort();
        }
        state.accept_tasks.push(task.abort_handle());
    }

    /// The rules in force.
    pub fn active_policy(&self) -> Arc<ActivePolicy> {
        Arc::clone(&self.lock().active_policy)
    }

    /// Connections that there are.
    pub fn active_connections(&self) -> usize {
        self.lock().connections.len()
    }

    /// These rules hold from now on. What they do not let out is reset when this returns.
    pub fn update_policy(&self, active_policy: &Arc<ActivePolicy>) {
        let (before, judged) = {
            let mut state = self.lock();
            let before = std::mem::replace(&mut state.active_policy, Arc::clone(active_policy));
            let judged = |(id, connection): (&u64, &TrackedConnection)| {
                Some((*id, connection.match_key.clone()?, connection.addresses))
            };
            (before, state.connections.iter().filter_map(judged).collect::<Vec<_>>())
        };
        if Arc::ptr_eq(&before, active_policy) {
            return;
        }
        // What is judged after this is judged by the new rules, so only what was before counts.
        let other_tunnel = before.policy.egress_proxy() != active_policy.policy.egress_proxy();
        for (id, match_key, addresses) in judged {
            let verdict = decide_connection(active_policy, addresses.1, &match_key);
            if verdict.allowed && !other_tunnel {
                continue;
            }
            if self.reset_if_matched_by(id, &match_key) && !verdict.allowed {
                self.proxy_counters.record_refusal(verdict.reason);
                self.report_event(addresses, match_key.name().map(str::to_owned), verdict.into());
            }
        }
    }

    /// Resets a connection if this is still what it is judged by.
    fn reset_if_matched_by(&self, id: u64, match_key: &MatchKey) -> bool {
        let mut state = self.lock();
        let same =
            |connection: &mut TrackedConnection| connection.match_key.as_ref() == Some(match_key);
        let removed =
            state.connections.get_mut(&id).is_some_and(same).then(|| state.connections.remove(&id));
        drop(state);
        removed.flatten().map(|live| self.terminate(&live)).is_some()
    }

    /// Resets all connections and takes no new ones.
    pub fn close(&self) {
        let (connections, accept_tasks) = {
            let mut state = self.lock();
            state.closed = true;
            (std::mem::take(&mut state.connections), std::mem::take(&mut state.accept_tasks))
        };
        for accept_task in accept_tasks {
            accept_task.abort();
        }
        connections.values().for_each(|live| self.terminate(live));
    }

    fn terminate(&self, connection: &TrackedConnection) {
        self.context.metrics.active_connections.dec();
        connection.reset();
    }

    /// Takes a connection, if the sandbox may have one more.
    fn admit(
        self: &Arc<Self>,
        client: TcpStream,
        addresses: ConnectionAddresses,
        decision_permit: DecisionPermit,
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
        })
    }

    /// Ends a connection that is one too many.
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
                    drop(permit);
                });
            }
            _ => reset_connection(&client),
        }
    }

    /// Enters what a connection was judged by under these rules: `None` when there are newer
    /// ones, `Some(false)` when the connection is closed.
    pub fn record_match_key(
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
        let there = connection.map(|live| live.match_key = Some(match_key.clone()));
        Some(there.is_some())
    }

    /// Enters where a connection goes on: whether it is not closed yet.
    pub fn attach_upstream(&self, id: u64, upstream: &SharedSocket) -> bool {
        let mut state = self.lock();
        let connection = state.connections.get_mut(&id);
        connection.map(|live| live.upstream = Arc::downgrade(upstream)).is_some()
    }

    /// The connection is over.
    pub fn remove_connection(&self, id: u64) {
        if self.lock().connections.remove(&id).is_some() {
            self.context.metrics.active_connections.dec();
        }
    }

    /// Reports what became of a connection, unless there are too many such reports.
    pub fn report_event(
        &self,
        addresses: ConnectionAddresses,
        name: Option<String>,
        decision: ConnectionDecision,
    ) {
        let now = u64::try_from(self.opened_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let take = |bucket| EVENT_RATE_LIMIT.take_token(bucket, now);
        if self.event_bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            self.context.event_buffer.add_lost(1);
            return;
        }
        let ConnectionDecision { reason, rule } = decision;
        let sandbox = self.sandbox.clone();
        let record =
            PolicyEvent::from_connection(sandbox, addresses.0, addresses.1, name, reason, rule);
        self.context.event_buffer.push(record);
    }

    fn lock(&self) -> MutexGuard<'_, SandboxProxyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where connections come from.
pub trait SandboxListener: Send + 'static {
    /// The next connection, and where it comes from.
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl SandboxListener for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// Takes connections for ever. No error ends it: what the process or the machine lacks now may be
/// there soon, and a connection that failed is not the next one.
async fn accept_loop(sandbox_proxy: Arc<SandboxProxy>, listener: impl SandboxListener) {
    let mut logged: Option<Instant> = None;
    loop {
        let error = match listener.accept().await {
            Ok((client, source)) => match sandbox_proxy
                .context
                .network
                .original_destination(&client)
            {
                Ok(destination) => {
                    let decision_permit = sandbox_proxy.decision_limiter.acquire().await;
                    admit_and_serve(&sandbox_proxy, client, (source, destination), decision_permit);
                    continue;
                }
                Err(error) => error,
            },
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
) {
    match sandbox_proxy.admit(client, addresses, decision_permit) {
        Ok(admitted) => serve_connection::spawn_serve(admitted),
        Err(AdmissionError::Closed) => {}
        Err(AdmissionError::Full(client)) => sandbox_proxy.reject_excess(client, addresses),
    }
}

/// What a connection would be judged as.
const fn expected_protocol(destination: SocketAddr) -> ConnectionProtocol {
    if destination.port() == HTTP_PORT { ConnectionProtocol::Http } else { ConnectionProtocol::Tls }
}
