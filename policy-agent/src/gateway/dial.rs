//! Connections from the gateway into a sandbox, in whatever network namespace its interface is.
//!
//! They are bound to the device that the sandbox is behind: where its interface is down, or its
//! address is somebody else's, no route leads a visitor's request to a stranger.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd as _, IntoRawFd as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::flow::UNSENT;
use crate::{
    dataplane::{Interface, device, within},
    net::race::{Way, interleaved, race},
    policy::SandboxSpec,
};

/// How long a sandbox may take to accept a connection.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Until the next address is tried beside those that have not answered. A sandbox is near.
const STAGGER: Duration = Duration::from_millis(100);
/// How long a refused connection is tried again: a service that is just being started is there soon.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// Between two such attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long it is taken for granted by which device a sandbox is reached.
const FRESH: Duration = Duration::from_secs(2);

/// Where a sandbox can be reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its interface.
    pub interface: Interface,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Makes connections into one sandbox.
#[derive(Debug)]
pub struct Dialer {
    place: Place,
    /// Its addresses, one family after the other.
    addresses: Vec<IpAddr>,
    /// Which of the addresses answered last.
    last: AtomicUsize,
    /// By which device each address is reached, and since when that is known.
    devices: Mutex<HashMap<IpAddr, (Instant, String)>>,
}

impl Dialer {
    /// A dialer that has not connected yet.
    pub fn new(place: Place) -> Self {
        let addresses = interleaved(&place.addresses);
        Self { place, addresses, last: AtomicUsize::new(0), devices: Mutex::default() }
    }

    /// Whether a sandbox that was asked for like this is where it connects to.
    pub fn leads_to(&self, spec: &SandboxSpec) -> bool {
        let Interface { name, netns } = &self.place.interface;
        *name == spec.interface && *netns == spec.netns && self.place.addresses == spec.addresses
    }

    /// Connects to a port of the sandbox, at the first of its addresses that accepts. One that
    /// refuses is tried again for a moment, if the caller wants to wait.
    ///
    /// # Errors
    /// None does; "connection refused" is the error if it is one of them.
    pub async fn connect(&self, port: u16, may_wait: bool) -> io::Result<TcpStream> {
        let begin = Instant::now();
        loop {
            match self.race(port).await {
                Err(error) if may_wait && is_for_now(&error, begin) => sleep(AGAIN_AFTER).await,
                connected => return connected,
            }
        }
    }

    async fn race(&self, port: u16) -> io::Result<TcpStream> {
        let (count, first) = (self.addresses.len(), self.last.load(Ordering::Relaxed));
        let turn = |place: usize| (first + place) % count;
        let mut ways: Vec<Way<'_, TcpStream>> = Vec::with_capacity(count);
        for place in 0..count {
            ways.push(Box::pin(self.attempt(self.addresses[turn(place)], port)));
        }
        let won = timeout(CONNECT_WITHIN, race(ways, STAGGER, Some(STAGGER))).await;
        let (place, stream) = won.map_err(io::Error::from)??;
        self.last.store(turn(place), Ordering::Relaxed);
        Ok(stream)
    }

    async fn attempt(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        let to = SocketAddr::new(address, port);
        let stream = self.socket(to).await?.connect(to).await?;
        // The host's own addresses are refused for sandboxes; one that it has got since is seen here.
        if stream.local_addr()?.ip() == address {
            return Err(io::Error::other("the address is the host's own"));
        }
        prepare(SockRef::from(&stream))?;
        Ok(stream)
    }

    /// A socket in the sandbox's namespace, bound to the device that leads to it.
    async fn socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let known = self.device(to.ip());
        if let (None, Some(device)) = (&self.place.interface.netns, &known) {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind_device(Some(device.as_bytes()))?;
            return Ok(socket);
        }
        let interface = self.place.interface.clone();
        let made = spawn_blocking(move || make(&interface, known, to)).await;
        let (socket, device) = made.map_err(io::Error::other)?.map_err(io::Error::other)?;
        self.remember(to.ip(), device);
        // SAFETY: the descriptor is a TCP socket, and owned by nobody else from here on.
        Ok(unsafe { TcpSocket::from_raw_fd(socket.into_raw_fd()) })
    }

    fn device(&self, address: IpAddr) -> Option<String> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, device) = devices.get(&address)?;
        (since.elapsed() < FRESH).then(|| device.clone())
    }

    fn remember(&self, address: IpAddr, (since, device): (Instant, String)) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.insert(address, (since, device));
    }
}

fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// Whether the service may be there in a moment.
fn is_for_now(error: &io::Error, begin: Instant) -> bool {
    let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
    is_refused && begin.elapsed() + AGAIN_AFTER < REFUSED_WITHIN
}

/// A socket stays in the namespace that it is made in. Blocks.
fn make(
    interface: &Interface,
    known: Option<String>,
    to: SocketAddr,
) -> Result<(Socket, (Instant, String))> {
    let asked = Instant::now();
    within(interface.netns.as_deref(), || {
        let device = match known {
            Some(device) => device,
            None => device::towards(&interface.name, to.ip())?,
        };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
        socket.bind_device(Some(device.as_bytes()))?;
        Ok((socket, (asked, device)))
    })
}

/// TLS towards services on `httpsPorts`. Their certificates are whatever they are: what reaches a
/// sandbox's address is the sandbox.
///
/// # Errors
/// The cryptography cannot be set up.
pub fn tls() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let any = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    let mut tls = builder.with_custom_certificate_verifier(any).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
