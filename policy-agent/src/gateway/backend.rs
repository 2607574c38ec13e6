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
    body::Source,
    dial::{CONNECT_WITHIN, Dialer, Place},
    flow::{Backlog, LARGE_BLOCKS, Metered, Paced, UNSENT_IN_TLS},
    framing::LONGEST_HEAD,
    pool::{Connection, Key, Pool},
};
use crate::{
    agent::{Sandbox, interface},
    life::Life,
    net::{
        socket::{Stream, reset},
        upstream::{Carrier, Upstream},
    },
};

/// What goes to a service: the client's body, or none.
pub type Outgoing = Either<Paced<Incoming>, Empty<Bytes>>;

/// Fields that an answer may have; there are services that set many cookies.
const MOST_FIELDS: usize = 1024;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Why there is no answer of a service.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody listens there.
    #[error(
        "nothing listens on this port: start the service, on all addresses and not on localhost"
    )]
    Closed,
    /// The gateway has no place for one more connection into a sandbox.
    #[error("too many connections into sandboxes at a time: try again")]
    Crowded,
    /// No connection could be made.
    #[error("the port cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// TLS failed.
    #[error("the service does not speak TLS, though httpsPorts says so: {0}")]
    Tls(#[source] io::Error),
    /// It is not HTTP, or it ended in the middle.
    #[error("the service closed the connection, or does not speak HTTP")]
    Broken,
    /// The client's own body broke off or was malformed.
    #[error("the body of the request is malformed, or ended too early")]
    BadBody,
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() { Self::BadBody } else { Self::Broken }
    }
}

/// Where and how a request goes.
pub struct Way<'a> {
    /// The port inside the sandbox.
    pub port: u16,
    /// Set for `httpsPorts`.
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// Whether a service that is not there may be waited for a moment.
    pub may_wait: bool,
}

/// One sandbox's services.
#[derive(Debug)]
pub struct Backend {
    number: u64,
    life: Arc<Life>,
    public: bool,
    dialer: Dialer,
    /// Is cancelled when the sandbox ends, moves, or turns private.
    gone: CancellationToken,
    places: Arc<Semaphore>,
    large_blocks: Arc<Semaphore>,
    pool: Arc<Pool>,
}

impl Backend {
    /// The services of a sandbox, of which so many connections may be used at a time.
    pub fn of(sandbox: &Sandbox, limit: usize, pool: &Arc<Pool>) -> Self {
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            life: Arc::clone(&sandbox.life),
            public: sandbox.rules.policy.allow_public_traffic(),
            dialer: Dialer::new(place(sandbox)),
            gone: sandbox.life.ended().child_token(),
            places: Arc::new(Semaphore::new(limit)),
            large_blocks: Arc::new(Semaphore::new(LARGE_BLOCKS)),
            pool: Arc::clone(pool),
        }
    }

    /// Whether this still is where the sandbox is, and as open as it is.
    pub fn is_of(&self, sandbox: &Sandbox) -> bool {
        Arc::ptr_eq(&self.life, &sandbox.life)
            && self.dialer.leads_to(&sandbox.head)
            && self.public == sandbox.rules.policy.allow_public_traffic()
    }

    /// Ends all connections.
    pub fn retire(&self) {
        self.gone.cancel();
        self.pool.forget(self.number);
    }

    /// Is cancelled when its connections have to end.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// A place for one more connection; `None` when all are taken.
    pub fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Sends a request and waits for the head of its answer, which comes with its connection. A
    /// request of which anything may have reached the service is not sent again: whether it was
    /// carried out is not known.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        way: &Way<'_>,
        mut request: Request<Outgoing>,
    ) -> Result<(Response<Incoming>, Source), Failure> {
        let key = Key { backend: self.number, port: way.port, tls: way.tls.is_some() };
        while let Some(mut connection) = self.pool.take(key) {
            goes_to(&mut request, &connection);
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.source(key, connection))),
                // It was closed while it was idle, and the request is still here as a whole.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        // Boxed, since the request would keep room for it as long as it lasts.
        let mut connection = Box::pin(self.connect(way)).await?;
        goes_to(&mut request, &connection);
        let response = connection.sender.send_request(request).await?;
        Ok((response, self.source(key, connection)))
    }

    fn source(&self, key: Key, connection: Connection) -> Source {
        Source { pool: Arc::clone(&self.pool), key, connection }
    }

    async fn connect(&self, way: &Way<'_>) -> Result<Connection, Failure> {
        let place = self.pool.place().await.ok_or(Failure::Crowded)?;
        let stream = self.dialer.connect(way.port, way.may_wait).await.map_err(unreachable)?;
        let plain = Upstream::plain(stream);
        let socket = Arc::clone(&plain.socket);
        let carrier = match way.tls {
            None => plain.carrier,
            Some(tls) => encrypted(Stream(plain.socket), tls).await.map_err(Failure::Tls)?,
        };
        let backlog = Backlog::default();
        let metered = Metered::new(carrier, backlog.clone(), Arc::clone(&self.large_blocks));
        let shaken = lenient().handshake::<_, Outgoing>(TokioIo::new(metered)).await;
        let (sender, connection) = shaken.map_err(|_| Failure::Broken)?;
        let made = Connection { sender, backlog, socket: Arc::downgrade(&socket) };
        let gone = self.gone.clone();
        tokio::spawn(async move {
            let _place = place;
            let ended = gone.run_until_cancelled(connection.with_upgrades()).await;
            if ended.is_none() {
                reset(&socket);
            }
        });
        Ok(made)
    }
}

/// Reads what other gateways read as well. What is odd is not passed on: the library writes each
/// answer anew, and [`answer`](super::answer) sees to the length of its body.
fn lenient() -> http1::Builder {
    let mut client = http1::Builder::new();
    client
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_FIELDS)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    client
}

fn goes_to(request: &mut Request<Outgoing>, connection: &Connection) {
    if let Either::Left(body) = request.body_mut() {
        body.goes_to(&connection.backlog);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.retire();
    }
}

fn place(sandbox: &Sandbox) -> Place {
    let head = &sandbox.head;
    Place { interface: interface(head), addresses: head.addresses.clone() }
}

async fn encrypted(stream: Stream, tls: &Arc<ClientConfig>) -> io::Result<Carrier> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let mut stream = timeout(CONNECT_WITHIN, connecting).await??;
    stream.get_mut().1.set_buffer_limit(Some(UNSENT_IN_TLS));
    Ok(Carrier::Encrypted(Box::new(stream)))
}

fn unreachable(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Closed,
        _ => Failure::Unreachable(error),
    }
}
