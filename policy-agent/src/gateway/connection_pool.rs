//! The pool of idle connections to sandboxes, and the limit on all backend connections. Idle
//! connections are bounded per sandbox and in total. The least recently used one is closed first,
//! and none stays idle longer than [`IDLE_TIMEOUT`].

use std::{
    collections::{HashMap, VecDeque},
    mem::MaybeUninit,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{interval, timeout},
};

use super::{backend::BackendRequestBody, flow_control::WriteBacklog, http2_pool::Http2Pool};
use crate::traffic_workers::current_worker_index;

/// Maximum idle time of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the pool closes expired connections.
const EVICTION_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of idle connections per sandbox.
const MAX_IDLE_PER_BACKEND: usize = 64;
/// How long to wait until a connection whose response has just been read takes the next request.
const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for the file descriptor of an idle connection that was closed in favor of a new
/// one.
const SOCKET_RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The destination of a pooled connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    /// The backend's ID.
    pub backend_id: u64,
    /// The port inside the sandbox.
    pub port: u16,
    /// Whether the connection uses TLS.
    pub is_tls: bool,
}

/// A connection to a sandbox.
#[derive(Debug)]
pub(super) struct BackendConnection {
    /// Sends the next request.
    pub sender: SendRequest<BackendRequestBody>,
    /// Body bytes that the connection has not written yet.
    pub backlog: WriteBacklog,
    /// The task that drives the connection owns the socket. It is gone once the task has ended.
    pub socket: Weak<TcpStream>,
    /// The worker that runs this task.
    pub worker_index: usize,
}

impl BackendConnection {
    /// Whether the connection can take a request as of now. The service may have closed it before
    /// the task that reads from it has noticed.
    fn is_usable(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else { return false };
        let nothing_to_read = SockRef::from(&*socket).peek(&mut [MaybeUninit::uninit()]);
        let would_block = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        !self.sender.is_closed() && nothing_to_read.is_err_and(|error| would_block(&error))
    }

    /// Waits until the connection can take a request. Right after a response has been read, the task
    /// that drives the connection may not have run yet, on another worker.
    pub(super) async fn becomes_ready(&mut self) -> bool {
        self.sender.is_ready()
            || timeout(READY_TIMEOUT, self.sender.ready()).await.is_ok_and(|ready| ready.is_ok())
    }
}

/// All idle connections.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    idle: Mutex<IdleConnections>,
    max_idle: usize,
    max_idle_per_backend: usize,
    socket_permits: Arc<Semaphore>,
    http2: Http2Pool,
}

#[derive(Debug, Default)]
struct IdleConnections {
    /// By backend, least recently used first. No queue is empty.
    by_backend: HashMap<u64, VecDeque<IdleConnection>>,
    count: usize,
}

#[derive(Debug)]
struct IdleConnection {
    key: PoolKey,
    idle_since: Instant,
    connection: BackendConnection,
}

impl ConnectionPool {
    /// Creates an empty pool for this many connections, half of which may be idle.
    pub(super) fn new(sockets: usize) -> Self {
        let max_idle = (sockets / 2).max(1);
        let max_idle_per_backend = MAX_IDLE_PER_BACKEND.min(max_idle.div_ceil(4));
        let socket_permits = Arc::new(Semaphore::new(sockets.clamp(1, Semaphore::MAX_PERMITS)));
        let http2 = Http2Pool::default();
        Self { idle: Mutex::default(), max_idle, max_idle_per_backend, socket_permits, http2 }
    }

    /// The connections that speak HTTP/2.
    pub(super) const fn http2(&self) -> &Http2Pool {
        &self.http2
    }

    /// Takes a permit for one more connection, closing an idle one if necessary. `None` if all are
    /// in use.
    pub(super) async fn acquire_socket_permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.socket_permits).try_acquire_owned() {
            return Some(permit);
        }
        if !self.lock_idle().drop_oldest() && !self.http2.drop_idle(Duration::ZERO) {
            return None;
        }
        let permit =
            timeout(SOCKET_RELEASE_TIMEOUT, Arc::clone(&self.socket_permits).acquire_owned()).await;
        permit.ok()?.ok()
    }

    /// Takes the most recently used connection to `key` that is usable, preferably one that is ready,
    /// and of those one of the current worker.
    pub(super) fn take(&self, key: PoolKey) -> Option<BackendConnection> {
        loop {
            let connection = self.lock_idle().take(key)?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Returns a connection whose response has been read.
    pub(super) fn put(&self, key: PoolKey, connection: BackendConnection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.lock_idle();
        let idle_of_backend = idle.by_backend.entry(key.backend_id).or_default();
        idle_of_backend.push_back(IdleConnection { key, idle_since: Instant::now(), connection });
        let too_many = idle_of_backend.len() > self.max_idle_per_backend;
        if too_many {
            idle_of_backend.pop_front();
        } else {
            idle.count += 1;
        }
        if idle.count > self.max_idle {
            idle.drop_oldest();
        }
    }

    /// Closes the idle connections of a retired backend.
    pub(super) fn remove_backend(&self, backend: u64) {
        self.http2.remove_backend(backend);
        let mut idle = self.lock_idle();
        let removed =
            idle.by_backend.remove(&backend).map_or(0, |idle_of_backend| idle_of_backend.len());
        idle.count -= removed;
    }

    /// Closes expired connections periodically, without end.
    pub(super) async fn run_eviction(self: Arc<Self>) {
        let mut ticks = interval(EVICTION_INTERVAL);
        loop {
            ticks.tick().await;
            self.lock_idle().drop_older_than(IDLE_TIMEOUT);
            self.http2.drop_idle(IDLE_TIMEOUT);
        }
    }

    fn lock_idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleConnections {
    fn take(&mut self, key: PoolKey) -> Option<BackendConnection> {
        let idle_of_backend = self.by_backend.get_mut(&key.backend_id)?;
        let own = current_worker_index();
        let preference = |idle: &IdleConnection| {
            (idle.connection.sender.is_ready(), idle.connection.worker_index == own)
        };
        // A service that has one connection at a time must get the one that it has.
        let fitting = idle_of_backend.iter().enumerate().filter(|(_, idle)| idle.key == key);
        let (position, _) = fitting.max_by_key(|(_, idle)| preference(idle))?;
        let taken = idle_of_backend.remove(position)?;
        if idle_of_backend.is_empty() {
            self.by_backend.remove(&key.backend_id);
        }
        self.count -= 1;
        Some(taken.connection)
    }

    /// Closes the least recently used connection. Returns false if there is none.
    fn drop_oldest(&mut self) -> bool {
        let age = |(_, idle_of_backend): &(&u64, &VecDeque<IdleConnection>)| {
            idle_of_backend.front().map(|oldest| oldest.idle_since)
        };
        let Some(backend) = self.by_backend.iter().min_by_key(age).map(|(backend, _)| *backend)
        else {
            return false;
        };
        let Some(idle_of_backend) = self.by_backend.get_mut(&backend) else { return false };
        let dropped = idle_of_backend.pop_front().is_some();
        if idle_of_backend.is_empty() {
            self.by_backend.remove(&backend);
        }
        self.count -= usize::from(dropped);
        dropped
    }

    fn drop_older_than(&mut self, age: Duration) {
        for idle_of_backend in self.by_backend.values_mut() {
            idle_of_backend.retain(|idle| {
                idle.idle_since.elapsed() < age && !idle.connection.sender.is_closed()
            });
        }
        self.by_backend.retain(|_, idle_of_backend| !idle_of_backend.is_empty());
        self.count = self.by_backend.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::socket::SharedTcpStream;

    const fn key(backend: u64, port: u16) -> PoolKey {
        PoolKey { backend_id: backend, port, is_tls: false }
    }

    /// A ready connection, and the service's side of it.
    async fn connection() -> (BackendConnection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let socket = Arc::new(near.expect("connected"));
        let io = TokioIo::new(SharedTcpStream(Arc::clone(&socket)));
        let (mut sender, serving) =
            http1::handshake::<_, BackendRequestBody>(io).await.expect("a handshake");
        let weak = Arc::downgrade(&socket);
        tokio::spawn(async move {
            let _socket = socket;
            let _ = serving.await;
        });
        sender.ready().await.expect("ready");
        let connection = BackendConnection {
            sender,
            backlog: WriteBacklog::default(),
            socket: weak,
            worker_index: 0,
        };
        (connection, far.expect("accepted").0)
    }

    fn local(connection: BackendConnection) -> std::net::SocketAddr {
        let socket = connection.socket.upgrade().expect("a connection");
        socket.local_addr().expect("an address")
    }

    #[tokio::test]
    async fn the_most_recently_used_match_is_taken() {
        let pool = ConnectionPool::new(64);
        let mut far = Vec::new();
        for pool_key in [key(1, 80), key(1, 81), key(1, 80), key(2, 80)] {
            let (connection, service) = connection().await;
            pool.put(pool_key, connection);
            far.push(service.peer_addr().expect("an address"));
            std::mem::forget(service);
        }
        assert_eq!(pool.take(key(1, 80)).map(local), Some(far[2]));
        assert_eq!(pool.take(key(1, 80)).map(local), Some(far[0]));
        assert!(pool.take(key(1, 80)).is_none());
        assert!(pool.take(PoolKey { is_tls: true, ..key(1, 81) }).is_none());
        pool.remove_backend(2);
        assert!(pool.take(key(2, 80)).is_none());
        assert_eq!(pool.lock_idle().count, 1);
    }

    #[tokio::test]
    async fn each_has_so_many_and_all_have_so_many_and_the_oldest_goes() {
        let pool = ConnectionPool::new(16); // 8 idle connections, 2 per backend
        let mut services = Vec::new();
        for number in 0..4 {
            let (connection, service) = connection().await;
            pool.put(key(1, number), connection);
            services.push(service);
        }
        assert!(pool.take(key(1, 0)).is_none() && pool.take(key(1, 1)).is_none());
        for backend in 2..10 {
            let (connection, service) = connection().await;
            pool.put(key(backend, 0), connection);
            services.push(service);
        }
        assert_eq!(pool.lock_idle().count, 8);
        assert!(pool.take(key(1, 2)).is_none() && pool.take(key(1, 3)).is_none());
        assert!(pool.take(key(2, 0)).is_some() && pool.take(key(9, 0)).is_some());
        pool.lock_idle().drop_older_than(IDLE_TIMEOUT);
        assert_eq!(pool.lock_idle().count, 6);
        pool.lock_idle().drop_older_than(Duration::ZERO);
        let idle = pool.lock_idle();
        assert_eq!((idle.count, idle.by_backend.len()), (0, 0));
    }

    #[tokio::test]
    async fn one_that_the_service_has_closed_or_spoken_on_is_not_taken() {
        use tokio::io::AsyncWriteExt as _;
        let pool = ConnectionPool::new(64);
        let (connection, service) = connection().await;
        pool.put(key(1, 80), connection);
        drop(service);
        // The task that reads from the connection has not run yet.
        assert!(pool.take(key(1, 80)).is_none());
        let (connection, mut service) = self::connection().await;
        pool.put(key(1, 80), connection);
        service.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.expect("written");
        assert!(pool.take(key(1, 80)).is_none());
    }

    #[tokio::test]
    async fn an_idle_connection_makes_way_for_a_new_one() {
        let pool = ConnectionPool::new(2);
        let (first, second) =
            (pool.acquire_socket_permit().await, pool.acquire_socket_permit().await);
        assert!(first.is_some() && second.is_some());
        assert!(pool.acquire_socket_permit().await.is_none(), "both are in use");
        let (connection, _service) = connection().await;
        pool.put(key(1, 80), connection);
        let closing = async { drop(first) };
        assert!(tokio::join!(pool.acquire_socket_permit(), closing).0.is_some());
        assert_eq!(pool.lock_idle().count, 0);
    }
}
