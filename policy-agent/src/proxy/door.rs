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

use policy_common::{limit::EVENTS, reason::Reason};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::AbortHandle,
    time::sleep,
};

use super::{
    alert::Alert,
    claim::Claim,
    connection,
    counts::Protocol,
    means::Means,
    socket::{Socket, reset},
    turn::{Turn, Turns},
    verdict::{Grounds, HTTP, HTTPS, Subject, judge},
};
use crate::{
    agent::{Rules, Tally},
    events::Record,
    policy::SandboxId,
};

/// How long to wait after an error before the next connection is asked for.
const RECOVERY: Duration = Duration::from_millis(20);
/// How often errors are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Connections beyond those that a sandbox may have, which are told why they are refused. Each takes
/// a file descriptor for a moment; others are reset.
const DISMISSED: usize = 8;

/// A sandbox's door.
pub struct Door {
    /// What its connections are served with.
    pub means: Arc<Means>,
    /// Whose it is.
    pub sandbox: SandboxId,
    /// What is counted for it.
    pub tally: Arc<Tally>,
    state: Mutex<State>,
    /// Bucket of [`EVENTS`]: a sandbox must not flood the log of events.
    events: AtomicU64,
    opened: Instant,
    /// How many of its connections are judged at a time.
    pub(super) turns: Turns,
    /// How many connections more may be told that there are too many.
    dismissed: Arc<Semaphore>,
}

struct State {
    rules: Arc<Rules>,
    live: HashMap<u64, Live>,
    next: u64,
    listeners: Vec<AbortHandle>,
    closed: bool,
}

/// Where a connection comes from, and where it was to go.
pub type FromTo = (SocketAddr, SocketAddr);

/// Why a connection is not taken.
enum Refused {
    /// There are as many as there may be.
    Full(TcpStream),
    /// The door is closed.
    Closed,
}

/// A connection that there is.
struct Live {
    way: FromTo,
    /// `None`: it is not judged yet.
    subject: Option<Subject>,
    client: Weak<TcpStream>,
    upstream: Weak<TcpStream>,
}

impl Live {
    fn reset(&self) {
        for socket in [&self.client, &self.upstream] {
            if let Some(socket) = socket.upgrade() {
                reset(&socket);
            }
        }
    }
}

impl Door {
    /// A door without listeners.
    pub fn new(
        means: Arc<Means>,
        sandbox: SandboxId,
        tally: Arc<Tally>,
        rules: Arc<Rules>,
    ) -> Self {
        let state =
            State { rules, live: HashMap::new(), next: 0, listeners: Vec::new(), closed: false };
        Self {
            means,
            sandbox,
            tally,
            state: Mutex::new(state),
            events: AtomicU64::new(0),
            opened: Instant::now(),
            turns: Turns::default(),
            dismissed: Arc::new(Semaphore::new(DISMISSED)),
        }
    }

    /// Serves what comes out of a listener, until the door is closed.
    pub fn serve(self: &Arc<Self>, listener: impl Listener) {
        let task = tokio::spawn(accept(Arc::clone(self), listener));
        let mut state = self.lock();
        if state.closed {
            task.abort();
        }
        state.listeners.push(task.abort_handle());
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.lock().rules)
    }

    /// Connections that there are.
    pub fn active(&self) -> usize {
        self.lock().live.len()
    }

    /// These rules hold from now on. What they do not let out is reset when this returns.
    pub fn follow(&self, rules: &Arc<Rules>) {
        let (before, judged) = {
            let mut state = self.lock();
            let before = std::mem::replace(&mut state.rules, Arc::clone(rules));
            let judged = |(id, live): (&u64, &Live)| Some((*id, live.subject.clone()?, live.way));
            (before, state.live.iter().filter_map(judged).collect::<Vec<_>>())
        };
        if Arc::ptr_eq(&before, rules) {
            return;
        }
        // What is judged after this is judged by the new rules, so only what was before counts.
        let other_tunnel = before.policy.tunnel() != rules.policy.tunnel();
        for (id, subject, way) in judged {
            let verdict = judge(rules, way.1, &subject);
            if verdict.allowed && !other_tunnel {
                continue;
            }
            if self.cut(id, &subject) && !verdict.allowed {
                self.tally.refuse(verdict.reason);
                self.report(way, subject.name().map(str::to_owned), verdict.into());
            }
        }
    }

    /// Resets a connection if this is still what it is judged by.
    fn cut(&self, id: u64, subject: &Subject) -> bool {
        let mut state = self.lock();
        let same = |live: &mut Live| live.subject.as_ref() == Some(subject);
        let live = state.live.get_mut(&id).is_some_and(same).then(|| state.live.remove(&id));
        drop(state);
        live.flatten().map(|live| self.end(&live)).is_some()
    }

    /// Resets all connections and takes no new ones.
    pub fn close(&self) {
        let (live, listeners) = {
            let mut state = self.lock();
            state.closed = true;
            (std::mem::take(&mut state.live), std::mem::take(&mut state.listeners))
        };
        for listener in listeners {
            listener.abort();
        }
        live.values().for_each(|live| self.end(live));
    }

    fn end(&self, live: &Live) {
        self.means.counts.active.dec();
        live.reset();
    }

    /// Takes a connection, if the sandbox may have one more.
    fn admit(
        self: &Arc<Self>,
        client: TcpStream,
        way: FromTo,
        turn: Turn,
    ) -> Result<Claim, Refused> {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            reset(&client);
            return Err(Refused::Closed);
        }
        if state.live.len() >= self.means.limit || self.means.counts.active.get() >= self.means.most
        {
            return Err(Refused::Full(client));
        }
        let client = Arc::new(client);
        let id = state.next;
        state.next += 1;
        let live =
            Live { way, subject: None, client: Arc::downgrade(&client), upstream: Weak::new() };
        state.live.insert(id, live);
        drop(state);
        self.means.counts.active.inc();
        Ok(Claim { door: Arc::clone(self), id, client, way, turn: Mutex::new(turn) })
    }

    /// Ends a connection that is one too many.
    fn turn_away(&self, client: TcpStream, way: FromTo) {
        let reason = Reason::TooManyConnections;
        self.tally.count(protocol(way.1), reason);
        self.report(way, None, reason.into());
        let speaks_tls = way.1.port() == HTTPS && self.rules().policy.has_names();
        match Arc::clone(&self.dismissed).try_acquire_owned() {
            Ok(permit) if speaks_tls => {
                let patience = self.means.patience;
                tokio::spawn(async move {
                    Alert::unasked(reason).send(&client, patience).await;
                    drop(permit);
                });
            }
            _ => reset(&client),
        }
    }

    /// Enters what a connection was judged by under these rules: `None` when there are newer
    /// ones, `Some(false)` when the connection is closed.
    pub fn enter(&self, id: u64, rules: &Arc<Rules>, subject: &Subject) -> Option<bool> {
        let mut state = self.lock();
        if !Arc::ptr_eq(&state.rules, rules) {
            return None;
        }
        let live = state.live.get_mut(&id);
        let there = live.map(|live| live.subject = Some(subject.clone()));
        Some(there.is_some())
    }

    /// Enters where a connection goes on: whether it is not closed yet.
    pub fn attach(&self, id: u64, upstream: &Socket) -> bool {
        let mut state = self.lock();
        let live = state.live.get_mut(&id);
        live.map(|live| live.upstream = Arc::downgrade(upstream)).is_some()
    }

    /// The connection is over.
    pub fn forget(&self, id: u64) {
        if self.lock().live.remove(&id).is_some() {
            self.means.counts.active.dec();
        }
    }

    /// Reports what became of a connection, unless there are too many such reports.
    pub fn report(&self, way: FromTo, name: Option<String>, grounds: Grounds) {
        let now = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let take = |bucket| EVENTS.take(bucket, now);
        if self.events.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            self.means.hub.lose(1);
            return;
        }
        let Grounds { reason, rule } = grounds;
        let sandbox = self.sandbox.clone();
        let record = Record::of_connection(sandbox, way.0, way.1, name, reason, rule);
        self.means.hub.push(record);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// The next connection, and where it comes from.
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// Takes connections for ever. No error ends it: what the process or the machine lacks now may be
/// there soon, and a connection that failed is not the next one.
async fn accept(door: Arc<Door>, listener: impl Listener) {
    let mut logged: Option<Instant> = None;
    loop {
        let error = match listener.accept().await {
            Ok((client, source)) => match door.means.network.destination(&client) {
                Ok(destination) => {
                    let turn = door.turns.next().await;
                    take(&door, client, (source, destination), turn);
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(sandbox = %door.sandbox, "cannot take a connection: {error}");
            logged = Some(Instant::now());
        }
        sleep(RECOVERY).await;
    }
}

fn take(door: &Arc<Door>, client: TcpStream, way: FromTo, turn: Turn) {
    match door.admit(client, way, turn) {
        Ok(claim) => connection::start(claim),
        Err(Refused::Closed) => {}
        Err(Refused::Full(client)) => door.turn_away(client, way),
    }
}

/// What a connection would be judged as.
const fn protocol(destination: SocketAddr) -> Protocol {
    if destination.port() == HTTP { Protocol::Http } else { Protocol::Tls }
}
