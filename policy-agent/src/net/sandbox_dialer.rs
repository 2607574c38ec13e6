//! Connects to a sandbox, in the network namespace of its interface.
//!
//! Sockets are bound to the device that leads to the sandbox. So if the interface is down, or the
//! address belongs to another host, no route takes a request there.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::happy_eyeballs::{ConnectAttempt, interleave_families, race_attempts};
use crate::{
    dataplane::{HostInterface, device_towards, run_in_netns},
    policy::SandboxSpec,
};

/// Time limit for connecting to a sandbox.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the next address is tried in parallel to those that have not answered. Sandboxes are
/// nearby.
const ATTEMPT_DELAY: Duration = Duration::from_millis(100);
/// Pause between two such attempts.
const REFUSED_RETRY_DELAY: Duration = Duration::from_millis(50);
/// How long the device that leads to an address is cached.
const DEVICE_CACHE_TTL: Duration = Duration::from_secs(2);

/// Bytes that a socket may hold unsent (`TCP_NOTSENT_LOWAT`, tcp(7)).
pub(crate) const SOCKET_UNSENT_LIMIT: u32 = 128 * 1024;

/// Connects to one sandbox.
#[derive(Debug)]
pub(crate) struct SandboxDialer {
    interface: HostInterface,
    /// Its addresses.
    addresses: Vec<IpAddr>,
    /// The same with alternating families.
    attempt_order: Vec<IpAddr>,
    /// Index of the address that accepted the last connection.
    last_index: AtomicUsize,
    /// The device of each address, and the time of its lookup.
    device_cache: Mutex<HashMap<IpAddr, (Instant, String)>>,
}

impl SandboxDialer {
    /// Creates a dialer for a sandbox.
    pub(crate) fn new(spec: &SandboxSpec) -> Self {
        Self {
            interface: HostInterface { name: spec.interface.clone(), netns: spec.netns.clone() },
            addresses: spec.addresses.clone(),
            attempt_order: interleave_families(&spec.addresses),
            last_index: AtomicUsize::new(0),
            device_cache: Mutex::default(),
        }
    }

    /// Whether the dialer still matches this interface and these addresses.
    pub(crate) fn is_for(&self, spec: &SandboxSpec) -> bool {
        let HostInterface { name, netns } = &self.interface;
        *name == spec.interface && *netns == spec.netns && self.addresses == spec.addresses
    }

    /// Connects to a port of the sandbox at the first address that accepts. Within `start_window`, a
    /// refused connection is retried: a service that is just starting will listen soon.
    ///
    /// # Errors
    /// All addresses failed. "Connection refused" takes precedence over other errors.
    pub(crate) async fn connect(&self, port: u16, start_window: Duration) -> io::Result<TcpStream> {
        let started_at = Instant::now();
        loop {
            match self.race_addresses(port).await {
                Err(error)
                    if is_starting(&error)
                        && started_at.elapsed() + REFUSED_RETRY_DELAY < start_window =>
                {
                    sleep(REFUSED_RETRY_DELAY).await
                }
                connected => return connected,
            }
        }
    }

    async fn race_addresses(&self, port: u16) -> io::Result<TcpStream> {
        let (count, first) = (self.attempt_order.len(), self.last_index.load(Ordering::Relaxed));
        let rotated = |offset: usize| (first + offset) % count;
        let mut attempts: Vec<ConnectAttempt<'_, TcpStream>> = Vec::with_capacity(count);
        for index in 0..count {
            attempts.push(Box::pin(self.connect_address(self.attempt_order[rotated(index)], port)));
        }
        let winner =
            timeout(CONNECT_TIMEOUT, race_attempts(attempts, ATTEMPT_DELAY, Some(ATTEMPT_DELAY)))
                .await;
        let (index, stream) = winner.map_err(io::Error::from)??;
        self.last_index.store(rotated(index), Ordering::Relaxed);
        Ok(stream)
    }

    async fn connect_address(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        let destination = SocketAddr::new(address, port);
        let stream = self.bound_socket(destination).await?.connect(destination).await?;
        // Sandboxes cannot be created with the host's own addresses. The host may have acquired the
        // address since.
        if stream.local_addr()?.ip() == address {
            return Err(io::Error::other("the address is the host's own"));
        }
        configure_socket(SockRef::from(&stream))?;
        Ok(stream)
    }

    /// A socket in the sandbox's namespace, bound to the device that leads to the sandbox.
    async fn bound_socket(&self, destination: SocketAddr) -> io::Result<TcpSocket> {
        let cached = self.cached_device(destination.ip());
        if let (None, Some(device)) = (&self.interface.netns, &cached) {
            return Ok(TcpSocket::from_std_stream(socket_on_device(device, destination)?.into()));
        }
        let (interface, is_cached) = (self.interface.clone(), cached.is_some());
        let created =
            spawn_blocking(move || bound_socket_in_netns(&interface, cached, destination)).await;
        let (socket, device) = created.map_err(io::Error::other)?.map_err(io::Error::other)?;
        if !is_cached {
            self.cache_device(destination.ip(), device);
        }
        Ok(TcpSocket::from_std_stream(socket.into()))
    }

    fn cached_device(&self, address: IpAddr) -> Option<String> {
        let devices = self.device_cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, device) = devices.get(&address)?;
        (since.elapsed() < DEVICE_CACHE_TTL).then(|| device.clone())
    }

    fn cache_device(&self, address: IpAddr, (since, device): (Instant, String)) {
        let mut devices = self.device_cache.lock().unwrap_or_else(PoisonError::into_inner);
        devices.insert(address, (since, device));
    }
}

fn configure_socket(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_notsent_lowat(SOCKET_UNSENT_LIMIT)
}

/// Whether a service that is starting, or its sandbox, may be the cause of an error.
fn is_starting(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable)
}

/// Creates a socket inside the namespace: a socket stays in the namespace it was created in.
/// Blocks.
fn bound_socket_in_netns(
    interface: &HostInterface,
    cached: Option<String>,
    destination: SocketAddr,
) -> Result<(Socket, (Instant, String))> {
    let looked_up_at = Instant::now();
    run_in_netns(interface.netns.as_deref(), || {
        let device = match cached {
            Some(device) => device,
            None => device_towards(&interface.name, destination.ip())?,
        };
        Ok((socket_on_device(&device, destination)?, (looked_up_at, device)))
    })
}

/// A socket in the current namespace, bound to a device.
fn socket_on_device(device: &str, destination: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(destination), Type::STREAM.nonblocking(), None)?;
    socket.bind_device(Some(device.as_bytes()))?;
    Ok(socket)
}
