//! Connections into sandboxes that wait for their next request, and how many connections there may
//! be at all. Idle ones are bounded for each sandbox and for all together; the one that was used
//! least recently goes first, and none waits longer than [`IDLE`].

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

use super::{backend::Outgoing, flow::Backlog};

/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(60);
/// How often those that have been for too long are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Idle connections of one sandbox.
const MOST_OF_ONE: usize = 64;
/// How long is waited for the descriptor of an idle connection that was closed for a new one.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Where a connection leads: a backend's number, a port, and whether it is inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The backend.
    pub backend: u64,
    /// The port.
    pub port: u16,
    /// Inside TLS.
    pub tls: bool,
}

/// A connection into a sandbox.
#[derive(Debug)]
pub struct Connection {
    /// Takes the next request.
    pub sender: SendRequest<Outgoing>,
    /// What it has not written yet.
    pub backlog: Backlog,
    /// Belongs to the task that serves the connection; gone when that has ended.
    pub socket: Weak<TcpStream>,
}

impl Connection {
    /// Whether a request can be sent, by what is known right now: the service may have ended the
    /// connection, which the task that reads it may not have seen yet.
    fn is_fresh(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else { return false };
        let nothing_to_read = SockRef::from(&*socket).peek(&mut [MaybeUninit::uninit()]);
        let waits = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        !self.sender.is_closed() && nothing_to_read.is_err_and(|error| waits(&error))
    }
}

/// All idle connections.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<Idle>,
    most: usize,
    most_of_one: usize,
    sockets: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Idle {
    /// By backend, the least recently used first; none is empty.
    of: HashMap<u64, VecDeque<Waiting>>,
    count: usize,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    since: Instant,
    connection: Connection,
}

impl Pool {
    /// An empty one, for so many connections at a time, half of which may be idle.
    pub fn new(sockets: usize) -> Self {
        let most = (sockets / 2).max(1);
        let most_of_one = MOST_OF_ONE.min(most.div_ceil(4));
        let sockets = Arc::new(Semaphore::new(sockets.clamp(1, Semaphore::MAX_PERMITS)));
        Self { idle: Mutex::default(), most, most_of_one, sockets }
    }

    /// A place for one more connection, if need be that of an idle one. `None`: all are in use.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.sockets).try_acquire_owned() {
            return Some(place);
        }
        if !self.idle().drop_oldest() {
            return None;
        }
        let freed = timeout(CLOSE_WITHIN, Arc::clone(&self.sockets).acquire_owned()).await;
        freed.ok()?.ok()
    }

    /// The connection to `key` that was used most recently and can be used.
    pub fn take(&self, key: Key) -> Option<Connection> {
        loop {
            let waiting = self.idle().take(key)?;
            if waiting.is_fresh() {
                return Some(waiting);
            }
        }
    }

    /// Keeps a connection whose answer has been read.
    pub fn put(&self, key: Key, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle();
        let of_one = idle.of.entry(key.backend).or_default();
        of_one.push_back(Waiting { key, since: Instant::now(), connection });
        let too_many = of_one.len() > self.most_of_one;
        if too_many {
            of_one.pop_front();
        } else {
            idle.count += 1;
        }
        if idle.count > self.most {
            idle.drop_oldest();
        }
    }

    /// Closes the idle connections of a backend that has ended.
    pub fn forget(&self, backend: u64) {
        let mut idle = self.idle();
        let gone = idle.of.remove(&backend).map_or(0, |of_one| of_one.len());
        idle.count -= gone;
    }

    /// Closes what has been idle for too long, for ever.
    pub async fn sweep(self: Arc<Self>) {
        let mut looks = interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            self.idle().drop_older_than(IDLE);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn take(&mut self, key: Key) -> Option<Connection> {
        let of_one = self.of.get_mut(&key.backend)?;
        let fits = |waiting: &Waiting| waiting.key == key && waiting.connection.sender.is_ready();
        let place = of_one.iter().rposition(fits)?;
        let taken = of_one.remove(place)?;
        if of_one.is_empty() {
            self.of.remove(&key.backend);
        }
        self.count -= 1;
        Some(taken.connection)
    }

    /// Closes the connection that was used least recently; whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let age = |(_, of_one): &(&u64, &VecDeque<Waiting>)| of_one.front().map(|one| one.since);
        let Some(backend) = self.of.iter().min_by_key(age).map(|(backend, _)| *backend) else {
            return false;
        };
        let Some(of_one) = self.of.get_mut(&backend) else { return false };
        let dropped = of_one.pop_front().is_some();
        if of_one.is_empty() {
            self.of.remove(&backend);
        }
        self.count -= usize::from(dropped);
        dropped
    }

    fn drop_older_than(&mut self, age: Duration) {
        for of_one in self.of.values_mut() {
            of_one.retain(|waiting| {
                waiting.since.elapsed() < age && !waiting.connection.sender.is_closed()
            });
        }
        self.of.retain(|_, of_one| !of_one.is_empty());
        self.count = self.of.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::socket::Stream;

    const fn key(backend: u64, port: u16) -> Key {
        Key { backend, port, tls: false }
    }

    /// A connection that is ready, and its service's side.
    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let socket = Arc::new(near.expect("connected"));
        let io = TokioIo::new(Stream(Arc::clone(&socket)));
        let (mut sender, serving) = http1::handshake::<_, Outgoing>(io).await.expect("a handshake");
        let weak = Arc::downgrade(&socket);
        tokio::spawn(async move {
            let _socket = socket;
            let _ = serving.await;
        });
        sender.ready().await.expect("ready");
        let connection = Connection { sender, backlog: Backlog::default(), socket: weak };
        (connection, far.expect("accepted").0)
    }

    fn local(connection: Connection) -> std::net::SocketAddr {
        let socket = connection.socket.upgrade().expect("a connection");
        socket.local_addr().expect("an address")
    }

    #[tokio::test]
    async fn the_newest_that_leads_there_is_taken() {
        let pool = Pool::new(64);
        let mut far = Vec::new();
        for place in [key(1, 80), key(1, 81), key(1, 80), key(2, 80)] {
            let (connection, service) = connection().await;
            pool.put(place, connection);
            far.push(service.peer_addr().expect("an address"));
            std::mem::forget(service);
        }
        assert_eq!(pool.take(key(1, 80)).map(local), Some(far[2]));
        assert_eq!(pool.take(key(1, 80)).map(local), Some(far[0]));
        assert!(pool.take(key(1, 80)).is_none());
        assert!(pool.take(Key { tls: true, ..key(1, 81) }).is_none());
        pool.forget(2);
        assert!(pool.take(key(2, 80)).is_none());
        assert_eq!(pool.idle().count, 1);
    }

    #[tokio::test]
    async fn each_has_so_many_and_all_have_so_many_and_the_oldest_goes() {
        let pool = Pool::new(16); // 8 idle ones, 2 of each backend
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
        assert_eq!(pool.idle().count, 8);
        assert!(pool.take(key(1, 2)).is_none() && pool.take(key(1, 3)).is_none());
        assert!(pool.take(key(2, 0)).is_some() && pool.take(key(9, 0)).is_some());
        pool.idle().drop_older_than(IDLE);
        assert_eq!(pool.idle().count, 6);
        pool.idle().drop_older_than(Duration::ZERO);
        let idle = pool.idle();
        assert_eq!((idle.count, idle.of.len()), (0, 0));
    }

    #[tokio::test]
    async fn one_that_the_service_has_closed_or_spoken_on_is_not_taken() {
        use tokio::io::AsyncWriteExt as _;
        let pool = Pool::new(64);
        let (connection, service) = connection().await;
        pool.put(key(1, 80), connection);
        drop(service);
        // The task that reads it has had no turn yet.
        assert!(pool.take(key(1, 80)).is_none());
        let (connection, mut service) = self::connection().await;
        pool.put(key(1, 80), connection);
        service.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.expect("written");
        assert!(pool.take(key(1, 80)).is_none());
    }

    #[tokio::test]
    async fn an_idle_connection_makes_way_for_a_new_one() {
        let pool = Pool::new(2);
        let (first, second) = (pool.place().await, pool.place().await);
        assert!(first.is_some() && second.is_some());
        assert!(pool.place().await.is_none(), "both are in use");
        let (connection, _service) = connection().await;
        pool.put(key(1, 80), connection);
        let closing = async { drop(first) };
        assert!(tokio::join!(pool.place(), closing).0.is_some());
        assert_eq!(pool.idle().count, 0);
    }
}
