//! The way to the services of one sandbox: its connections, and how many it may have.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http_body_util::{Either, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{
    connection_pool::{BackendConnection, ConnectionPool, PoolKey},
    dialer::{BackendAddress, BackendDialer, CONNECT_TIMEOUT},
    flow_control::{
        LARGE_READS_PER_SANDBOX, MeteredStream, PacedBody, TLS_UNSENT_LIMIT, WriteBacklog,
    },
    request_framer::MAX_HEAD_SIZE,
    response_body::PooledConnection,
};
use crate::{
    agent::{Sandbox, SandboxLifetime, interface_for},
    net::{
        socket::{SharedTcpStream, reset_connection},
        upstream::{UpstreamConnection, UpstreamIo},
    },
};

/// What goes to a service: the client's body, or none.
pub type BackendRequestBody = Either<PacedBody<Incoming>, Empty<Bytes>>;

/// Fields that an answer may have; there are services that set many cookies.
const MAX_RESPONSE_HEADERS: usize = 1024;

static NEXT_BACKEND_ID: AtomicU64 = AtomicU64::new(0);

/// Why there is no answer of a service.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Nobody listens there.
    #[error(
        "nothing listens on this port: start the service, on all addresses and not on localhost"
    )]
    PortClosed,
    /// The gateway has no place for one more connection into a sandbox.
    #[error("too many connections into sandboxes at a time: try again")]
    TooManyConnections,
    /// No connection could be made.
    #[error("the port cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// TLS failed.
    #[error("the service does not speak TLS, though httpsPorts says so: {0}")]
    Tls(#[source] io::Error),
    /// It is not HTTP, or it ended in the middle.
    #[error("the service closed the connection, or does not speak HTTP")]
    InvalidResponse,
    /// The client's own body broke off or was malformed.
    #[error("the body of the request is malformed, or ended too early")]
    InvalidRequestBody,
}

impl From<hyper::Error> for BackendError {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() { Self::InvalidRequestBody } else { Self::InvalidResponse }
    }
}

/// Where and how a request goes.
pub struct BackendTarget<'a> {
    /// The port inside the sandbox.
    pub port: u16,
    /// Set for `httpsPorts`.
    pub tls_config: Option<&'a Arc<ClientConfig>>,
    /// Whether a service that is not there may be waited for a moment.
    pub retry_refused: bool,
}

/// One sandbox's services.
#[derive(Debug)]
pub struct SandboxBackend {
    id: u64,
    lifetime: Arc<SandboxLifetime>,
    is_public: bool,
    dialer: BackendDialer,
    /// Is cancelled when the sandbox ends, moves, or turns private.
    retired: CancellationToken,
    connection_permits: Arc<Semaphore>,
    large_read_permits: Arc<Semaphore>,
    pool: Arc<ConnectionPool>,
}

impl SandboxBackend {
    /// The services of a sandbox, of which so many connections may be used at a time.
    pub fn for_sandbox(sandbox: &Sandbox, limit: usize, pool: &Arc<ConnectionPool>) -> Self {
        Self {
            id: NEXT_BACKEND_ID.fetch_add(1, Ordering::Relaxed),
            lifetime: Arc::clone(&sandbox.lifetime),
            is_public: sandbox.active_policy.policy.allow_public_traffic(),
            dialer: BackendDialer::new(backend_address(sandbox)),
            retired: sandbox.lifetime.cancellation().child_token(),
            connection_permits: Arc::new(Semaphore::new(limit)),
            large_read_permits: Arc::new(Semaphore::new(LARGE_READS_PER_SANDBOX)),
            pool: Arc::clone(pool),
        }
    }

    /// Whether this still is where the sandbox is, and as open as it is.
    pub fn is_current_for(&self, sandbox: &Sandbox) -> bool {
        Arc::ptr_eq(&self.lifetime, &sandbox.lifetime)
            && self.dialer.is_for(&sandbox.base_spec)
            && self.is_public == sandbox.active_policy.policy.allow_public_traffic()
    }

    /// Ends all connections.
    pub fn retire(&self) {
        self.retired.cancel();
        self.pool.remove_backend(self.id);
    }

    /// Is cancelled when its connections have to end.
    pub fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// A place for one more connection; `None` when all are taken.
    pub fn acquire_connection_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connection_permits).try_acquire_owned().ok()
    }

    /// Sends a request and waits for the head of its answer, which comes with its connection. A
    /// request of which anything may have reached the service is not sent again: whether it was
    /// carried out is not known.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send_request(
        &self,
        target: &BackendTarget<'_>,
        mut request: Request<BackendRequestBody>,
    ) -> Result<(Response<Incoming>, PooledConnection), BackendError> {
        let key =
            PoolKey { backend_id: self.id, port: target.port, is_tls: target.tls_config.is_some() };
        while let Some(mut connection) = self.pool.take(key) {
            set_backlog(&mut request, &connection);
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.pooled(key, connection))),
                // It was closed while it was idle, and the request is still here as a whole.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        // Boxed, since the request would keep room for it as long as it lasts.
        let mut connection = Box::pin(self.connect(target)).await?;
        set_backlog(&mut request, &connection);
        let response = connection.sender.send_request(request).await?;
        Ok((response, self.pooled(key, connection)))
    }

    fn pooled(&self, key: PoolKey, connection: BackendConnection) -> PooledConnection {
        PooledConnection { pool: Arc::clone(&self.pool), key, connection }
    }

    async fn connect(&self, target: &BackendTarget<'_>) -> Result<BackendConnection, BackendError> {
        let socket_permit =
            self.pool.acquire_socket_permit().await.ok_or(BackendError::TooManyConnections)?;
        let stream =
            self.dialer.connect(target.port, target.retry_refused).await.map_err(connect_error)?;
        let plain = UpstreamConnection::plain(stream);
        let socket = Arc::clone(&plain.socket);
        let io = match target.tls_config {
            None => plain.io,
            Some(tls) => {
                connect_tls(SharedTcpStream(plain.socket), tls).await.map_err(BackendError::Tls)?
            }
        };
        let backlog = WriteBacklog::default();
        let metered = MeteredStream::new(io, backlog.clone(), Arc::clone(&self.large_read_permits));
        let handshake =
            lenient_http1_builder().handshake::<_, BackendRequestBody>(TokioIo::new(metered)).await;
        let (sender, connection) = handshake.map_err(|_| BackendError::InvalidResponse)?;
        let backend_connection =
            BackendConnection { sender, backlog, socket: Arc::downgrade(&socket) };
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

/// Reads what other gateways read as well. What is odd is not passed on: the library writes each
/// answer anew, and [`answer`](super::answer) sees to the length of its body.
fn lenient_http1_builder() -> http1::Builder {
    let mut client = http1::Builder::new();
    client
        .max_buf_size(MAX_HEAD_SIZE)
        .max_headers(MAX_RESPONSE_HEADERS)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    client
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

fn backend_address(sandbox: &Sandbox) -> BackendAddress {
    let head = &sandbox.base_spec;
    BackendAddress { interface: interface_for(head), addresses: head.addresses.clone() }
}

async fn connect_tls(stream: SharedTcpStream, tls: &Arc<ClientConfig>) -> io::Result<UpstreamIo> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let mut stream = timeout(CONNECT_TIMEOUT, connecting).await??;
    stream.get_mut().1.set_buffer_limit(Some(TLS_UNSENT_LIMIT));
    Ok(UpstreamIo::Tls(Box::new(stream)))
}

fn connect_error(error: io::Error) -> BackendError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => BackendError::PortClosed,
        _ => BackendError::Unreachable(error),
    }
}
