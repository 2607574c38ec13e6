//! The services of one sandbox: the gateway's connections to them, and their limit.
//! [`super::backend_http2`] has the part that concerns HTTP/2.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{Either, Empty};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{
    backend_tls::BackendTls,
    connection_pool::{BackendConnection, ConnectionPool, PoolKey},
    flow_control::{
        LARGE_READS_PER_SANDBOX, MeteredStream, PacedBody, TLS_UNSENT_LIMIT, WriteBacklog,
    },
    request_body::{BodyProgress, ClientRequestBody},
    response_body::{PooledConnection, ResponseConnection},
    service_protocol::{Http2Use, ServiceProtocols},
    websocket,
};
use crate::{
    agent::{Sandbox, SandboxLifetime},
    net::{
        continue_gate::ContinueGate,
        sandbox_dialer::{CONNECT_TIMEOUT, SandboxDialer},
        socket::{SharedSocket, SharedTcpStream, reset_connection},
        upstream::{UpstreamConnection, UpstreamIo, lenient_http1_client},
    },
    traffic_workers::current_worker_index,
};

/// The body of a request to a service: the client's, or an empty one.
pub(super) type BackendRequestBody = Either<PacedBody<ClientRequestBody>, Empty<Bytes>>;

/// Maximum number of header fields in a response. Some services set many cookies. The HTTP library
/// clears a list of this length for each response, so more would cost time.
const MAX_RESPONSE_HEADERS: usize = 512;

static NEXT_BACKEND_ID: AtomicU64 = AtomicU64::new(0);

/// Why a service sent no valid response.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendError {
    /// Nothing listens on the port.
    #[error(
        "nothing listens on this port: start the service, on all addresses and not on localhost"
    )]
    PortClosed,
    /// The gateway has reached its maximum number of backend connections.
    #[error("too many connections into sandboxes at a time: try again")]
    TooManyConnections,
    /// The connection could not be established.
    #[error("the port cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The TLS handshake failed.
    #[error("the service does not speak TLS, though httpsPorts says so: {0}")]
    Tls(#[source] io::Error),
    /// The response is not HTTP, or incomplete.
    #[error("the service closed the connection, or does not speak HTTP")]
    InvalidResponse,
    /// The client's request body is incomplete or malformed.
    #[error("the body of the request is malformed, or ended too early")]
    InvalidRequestBody,
    /// The service does not speak HTTP/2, which `http2_ports` promises.
    #[error("the service does not speak HTTP/2, though gateway.http2_ports says so")]
    NotHttp2,
    /// The host of the request, or `maskRequestHost`, cannot be expressed in HTTP/2.
    #[error("the service speaks HTTP/2, which cannot carry this Host")]
    InvalidHost,
}

impl From<hyper::Error> for BackendError {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() { Self::InvalidRequestBody } else { Self::InvalidResponse }
    }
}

/// The port to connect to, and how.
pub(super) struct BackendTarget<'a> {
    /// The port inside the sandbox.
    pub port: u16,
    /// Set for `httpsPorts`.
    pub tls: Option<&'a BackendTls>,
    /// Whether the request may use HTTP/2.
    pub http2_use: Http2Use,
    /// How long to retry refused connections.
    pub start_window: Duration,
}

/// The services of one sandbox.
#[derive(Debug)]
pub(super) struct SandboxBackend {
    id: u64,
    lifetime: Arc<SandboxLifetime>,
    is_public: bool,
    admitted_clients: Option<Vec<IpNet>>,
    dialer: SandboxDialer,
    /// Cancelled when the sandbox ends, or changes its addresses or who may reach it.
    retired: CancellationToken,
    connection_permits: Arc<Semaphore>,
    large_read_permits: Arc<Semaphore>,
    /// What the services speak.
    pub(super) protocols: ServiceProtocols,
    /// The pool of the connections.
    pub(super) pool: Arc<ConnectionPool>,
}

/// An established connection to a service that has carried no HTTP yet.
pub(super) struct DialedService {
    /// The stream to read from and write to.
    pub io: UpstreamIo,
    /// Its TCP socket.
    pub socket: SharedSocket,
    /// The permit of the socket.
    pub socket_permit: OwnedSemaphorePermit,
    /// Whether TLS has agreed on HTTP/2.
    pub is_http2: bool,
}

impl SandboxBackend {
    /// Creates the backend of a sandbox, with at most `limit` concurrent connections.
    pub(super) fn for_sandbox(sandbox: &Sandbox, limit: usize, pool: &Arc<ConnectionPool>) -> Self {
        Self {
            id: NEXT_BACKEND_ID.fetch_add(1, Ordering::Relaxed),
            lifetime: Arc::clone(&sandbox.lifetime),
            is_public: sandbox.active_policy.policy.allow_public_traffic(),
            admitted_clients: admitted_clients(sandbox).map(<[_]>::to_vec),
            dialer: SandboxDialer::new(&sandbox.base_spec),
            retired: sandbox.lifetime.cancellation().child_token(),
            connection_permits: Arc::new(Semaphore::new(limit)),
            large_read_permits: Arc::new(Semaphore::new(LARGE_READS_PER_SANDBOX)),
            protocols: ServiceProtocols::default(),
            pool: Arc::clone(pool),
        }
    }

    /// Whether lifetime, addresses and access still match the sandbox.
    pub(super) fn is_current_for(&self, sandbox: &Sandbox) -> bool {
        Arc::ptr_eq(&self.lifetime, &sandbox.lifetime)
            && self.dialer.is_for(&sandbox.base_spec)
            && self.is_public == sandbox.active_policy.policy.allow_public_traffic()
            && self.admitted_clients.as_deref() == admitted_clients(sandbox)
    }

    /// Ends all connections.
    pub(super) fn retire(&self) {
        self.retired.cancel();
        self.pool.remove_backend(self.id);
    }

    /// Cancelled when the connections have to end.
    pub(super) fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Takes a permit for one more connection. `None` if the limit is reached.
    pub(super) fn acquire_connection_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connection_permits).try_acquire_owned().ok()
    }

    /// Sends a request and waits for the head of the response. It comes with its connection. A
    /// request is not repeated once any part of it may have reached the service, because it may
    /// have been executed.
    ///
    /// # Errors
    /// There is no valid response.
    pub(super) async fn send_request(
        &self,
        target: &BackendTarget<'_>,
        request: Request<BackendRequestBody>,
    ) -> Result<(Response<Incoming>, ResponseConnection), BackendError> {
        let key = PoolKey { backend_id: self.id, port: target.port, is_tls: target.tls.is_some() };
        let is_connect = request.method() == Method::CONNECT;
        if let Some(mut stream) = self.open_http2_stream(target, key).await?
            && (!is_connect || stream.settings.extended_connect)
        {
            let response = Self::send_over_http2(&mut stream, request, key.is_tls).await?;
            return Ok((response, ResponseConnection::Http2(stream)));
        }
        let sent = self.send_over_http1(target, key, request).await;
        if matches!(sent, Err(BackendError::InvalidResponse)) {
            self.protocols.record_http1_failure(key);
        }
        sent.map(|(response, pooled)| (response, ResponseConnection::Http1(pooled)))
    }

    async fn send_over_http1(
        &self,
        target: &BackendTarget<'_>,
        key: PoolKey,
        mut request: Request<BackendRequestBody>,
    ) -> Result<(Response<Incoming>, PooledConnection), BackendError> {
        if request.method() == Method::CONNECT {
            websocket::into_upgrade(&mut request)?;
        }
        let gate = hold_body(&mut request);
        let body = body_progress(&mut request);
        while let Some(mut connection) = self.pool.take(key) {
            if !connection.becomes_ready().await {
                break; // this closes it
            }
            set_backlog(&mut request, &connection);
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.pooled(key, connection, gate, body))),
                // The connection was closed while idle. The request is still complete.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        // Boxed because the request would reserve space for it as long as it lasts otherwise.
        let mut connection =
            Box::pin(async { self.start_http1(self.dial(target, false).await?).await }).await?;
        set_backlog(&mut request, &connection);
        let response = connection.sender.send_request(request).await?;
        Ok((response, self.pooled(key, connection, gate, body)))
    }

    fn pooled(
        &self,
        key: PoolKey,
        connection: BackendConnection,
        gate: Option<ContinueGate>,
        request_body: Option<BodyProgress>,
    ) -> PooledConnection {
        PooledConnection { pool: Arc::clone(&self.pool), key, connection, gate, request_body }
    }

    /// Connects to the service, and offers HTTP/2 in the TLS handshake.
    ///
    /// # Errors
    /// The service cannot be reached, or does not speak TLS.
    pub(super) async fn dial(
        &self,
        target: &BackendTarget<'_>,
        offer_http2: bool,
    ) -> Result<DialedService, BackendError> {
        let socket_permit =
            self.pool.acquire_socket_permit().await.ok_or(BackendError::TooManyConnections)?;
        let stream =
            self.dialer.connect(target.port, target.start_window).await.map_err(connect_error)?;
        let plain = UpstreamConnection::plain(stream);
        let socket = Arc::clone(&plain.socket);
        let (io, is_http2) = match target.tls {
            None => (plain.io, false),
            Some(tls) => {
                let config = if offer_http2 { &tls.http2 } else { &tls.http1 };
                let connecting = connect_tls(SharedTcpStream(plain.socket), config);
                connecting.await.map_err(BackendError::Tls)?
            }
        };
        Ok(DialedService { io, socket, socket_permit, is_http2 })
    }

    /// Starts HTTP/1 on a connection.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn start_http1(
        &self,
        dialed: DialedService,
    ) -> Result<BackendConnection, BackendError> {
        let DialedService { io, socket, socket_permit, .. } = dialed;
        let backlog = WriteBacklog::default();
        let metered = MeteredStream::new(io, backlog.clone(), Arc::clone(&self.large_read_permits));
        let handshake =
            lenient_http1_client(MAX_RESPONSE_HEADERS).handshake(TokioIo::new(metered)).await;
        let (sender, connection) = handshake.map_err(|_| BackendError::InvalidResponse)?;
        let backend_connection = BackendConnection {
            sender,
            backlog,
            socket: Arc::downgrade(&socket),
            worker_index: current_worker_index(),
        };
        let retired = self.retired.clone();
        tokio::spawn(async move {
            let _socket_permit = socket_permit;
            let ended = retired.run_until_cancelled(connection.with_upgrades()).await;
            if ended.is_none() {
                reset_connection(&socket);
            }
        });
        Ok(backend_connection)
    }
}

/// Holds the body back until the service asks for it, if the client waits for that.
fn hold_body(request: &mut Request<BackendRequestBody>) -> Option<ContinueGate> {
    if matches!(request.body(), Either::Right(_)) {
        return None;
    }
    let (gate, held) = ContinueGate::for_request(request)?;
    if let Either::Left(body) = request.body_mut() {
        body.get_mut().hold(held);
    }
    Some(gate)
}

fn body_progress(request: &mut Request<BackendRequestBody>) -> Option<BodyProgress> {
    match request.body_mut() {
        Either::Left(body) => Some(body.get_mut().progress()),
        Either::Right(_) => None,
    }
}

fn set_backlog(request: &mut Request<BackendRequestBody>, connection: &BackendConnection) {
    if let Either::Left(body) = request.body_mut() {
        body.set_backlog(&connection.backlog);
    }
}

impl Drop for SandboxBackend {
    fn drop(&mut self) {
        self.retire();
    }
}

fn admitted_clients(sandbox: &Sandbox) -> Option<&[IpNet]> {
    sandbox.active_policy.policy.allow_public_from()
}

/// Returns the stream, and whether the service chose HTTP/2.
async fn connect_tls(
    stream: SharedTcpStream,
    tls: &Arc<ClientConfig>,
) -> io::Result<(UpstreamIo, bool)> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let mut stream = timeout(CONNECT_TIMEOUT, connecting).await??;
    stream.get_mut().1.set_buffer_limit(Some(TLS_UNSENT_LIMIT));
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((UpstreamIo::Tls(Box::new(stream)), is_http2))
}

fn connect_error(error: io::Error) -> BackendError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => BackendError::PortClosed,
        _ => BackendError::Unreachable(error),
    }
}
