//! The HTTP/2 connections to services. Requests to one port share a connection, up to
//! [`MAX_STREAMS`] at a time.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use hyper::client::conn::http2::SendRequest;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{backend::BackendRequestBody, connection_pool::PoolKey};
use crate::net::settings_probe::Http2Settings;

/// Maximum number of concurrent requests on a connection. With
/// [`CONNECTION_WINDOW`], clients that do not read cannot block the others.
const MAX_STREAMS: usize = 64;
/// Flow control window of a response body in bytes.
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow control window of a connection: all its bodies may stall at once.
pub(super) const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// A connection to a service.
#[derive(Clone, Debug)]
pub(super) struct Http2Connection {
    sender: SendRequest<BackendRequestBody>,
    settings: Http2Settings,
    max_streams: usize,
    stream_permits: Arc<Semaphore>,
    /// The task that drives the connection owns the socket.
    socket: Weak<TcpStream>,
    last_used: Instant,
}

impl Http2Connection {
    /// A new connection.
    pub(super) fn new(
        sender: SendRequest<BackendRequestBody>,
        settings: Http2Settings,
        socket: Weak<TcpStream>,
    ) -> Self {
        let max_streams = settings.max_streams.and_then(|streams| usize::try_from(streams).ok());
        let max_streams = max_streams.unwrap_or(MAX_STREAMS).clamp(1, MAX_STREAMS);
        let stream_permits = Arc::new(Semaphore::new(max_streams));
        let last_used = Instant::now();
        Self { sender, settings, max_streams, stream_permits, socket, last_used }
    }

    /// Reserves a stream. `None` if the connection has no more.
    fn open_stream(&mut self) -> Option<Http2Stream> {
        let permit = Arc::clone(&self.stream_permits).try_acquire_owned().ok()?;
        self.last_used = Instant::now();
        Some(Http2Stream {
            sender: self.sender.clone(),
            settings: self.settings,
            _stream_permit: permit,
        })
    }

    /// Whether the connection is open. The service may have closed it before the task that reads
    /// from it has noticed.
    fn is_open(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else { return false };
        let next_byte = SockRef::from(&*socket).peek(&mut [MaybeUninit::uninit()]);
        let has_not_ended = match next_byte {
            Ok(count) => count > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        has_not_ended && !self.sender.is_closed()
    }

    fn is_idle(&self) -> bool {
        self.stream_permits.available_permits() == self.max_streams
    }
}

/// A stream of a connection. The connection stays open as long as it exists.
#[derive(Debug)]
pub(super) struct Http2Stream {
    /// Sends the request.
    pub sender: SendRequest<BackendRequestBody>,
    /// The service's settings.
    pub settings: Http2Settings,
    _stream_permit: OwnedSemaphorePermit,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Http2Pool {
    ports: Mutex<HashMap<PoolKey, Http2Port>>,
}

#[derive(Debug, Default)]
struct Http2Port {
    connections: Vec<Http2Connection>,
    /// Held while connecting, so that requests that arrive together share a connection.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

impl Http2Pool {
    /// Opens a stream to `key` on an open connection.
    pub(super) fn open_stream(&self, key: PoolKey) -> Option<Http2Stream> {
        let mut ports = self.lock_ports();
        let connections = &mut ports.get_mut(&key)?.connections;
        connections.retain(Http2Connection::is_open);
        connections.iter_mut().find_map(Http2Connection::open_stream)
    }

    /// The lock to hold while connecting to `key`.
    pub(super) fn connecting(&self, key: PoolKey) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.lock_ports().entry(key).or_default().connecting)
    }

    /// Adds a connection, and opens its first stream.
    pub(super) fn insert(
        &self,
        key: PoolKey,
        mut connection: Http2Connection,
    ) -> Option<Http2Stream> {
        let stream = connection.open_stream();
        self.lock_ports().entry(key).or_default().connections.push(connection);
        stream
    }

    /// Forgets the connections of a retired backend.
    pub(super) fn remove_backend(&self, backend: u64) {
        self.lock_ports().retain(|key, _| key.backend_id != backend);
    }

    /// Closes connections that have been without a request for this time. Returns whether there
    /// were any.
    pub(super) fn drop_idle(&self, age: Duration) -> bool {
        let mut dropped = false;
        self.lock_ports().retain(|_, port| {
            port.connections.retain(|connection| {
                let is_expired = connection.is_idle() && connection.last_used.elapsed() >= age;
                dropped |= is_expired;
                !is_expired && !connection.sender.is_closed()
            });
            !port.connections.is_empty() || Arc::strong_count(&port.connecting) > 1
        });
        dropped
    }

    fn lock_ports(&self) -> MutexGuard<'_, HashMap<PoolKey, Http2Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
