//! The way to the services of one sandbox: its pooled connections, and how many it may have.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http_body_util::{Either, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
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
    dial::{self, CONNECT_WITHIN, Place},
    framing::LONGEST_HEAD,
};
use crate::{
    agent::Sandbox,
    life::Life,
    net::{
        socket::{Stream, reset},
        upstream::{Carrier, Upstream},
    },
};

/// What goes to a service: the client's body, or none.
pub type Outgoing = Either<Incoming, Empty<Bytes>>;
type Sender = SendRequest<Outgoing>;

/// Connections that are kept for one port without being used.
const MOST_IDLE: usize = 64;

/// Why there is no answer of a service.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody listens there.
    #[error(
        "nothing listens on this port: start the service, on all addresses and not on localhost"
    )]
    Closed,
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
}

/// One sandbox's services.
#[derive(Debug)]
pub struct Backend {
    life: Arc<Life>,
    public: bool,
    place: Place,
    /// Is cancelled when the sandbox ends, moves, or turns private.
    gone: CancellationToken,
    places: Arc<Semaphore>,
    idle: Mutex<HashMap<(u16, bool), Vec<Sender>>>,
}

impl Backend {
    /// The services of a sandbox, of which so many connections may be used at a time.
    pub fn of(sandbox: &Sandbox, limit: usize) -> Self {
        Self {
            life: Arc::clone(&sandbox.life),
            public: sandbox.rules.policy.allow_public_traffic(),
            place: place(sandbox),
            gone: sandbox.life.ended().child_token(),
            places: Arc::new(Semaphore::new(limit)),
            idle: Mutex::default(),
        }
    }

    /// Whether this still is where the sandbox is, and as open as it is.
    pub fn is_of(&self, sandbox: &Sandbox) -> bool {
        Arc::ptr_eq(&self.life, &sandbox.life)
            && self.place == place(sandbox)
            && (self.public == sandbox.rules.policy.allow_public_traffic())
    }

    /// Ends all connections.
    pub fn retire(&self) {
        self.gone.cancel();
    }

    /// Is cancelled when its connections have to end.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// A place for one more connection; `None` when all are taken.
    pub fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        way: &Way<'_>,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Failure> {
        let again = repeatable(&request);
        while let Some(mut sender) = self.take(way) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.keep(way, sender, response)),
                // It was closed while it was idle: nobody has seen the request, or nobody minds.
                Err(mut error) => match (error.take_message(), &again) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(again)) => {
                        request = again.clone().map(Either::Right);
                        break;
                    }
                    (None, None) => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.connect(way).await?;
        let response = sender.send_request(request).await?;
        Ok(self.keep(way, sender, response))
    }

    async fn connect(&self, way: &Way<'_>) -> Result<Sender, Failure> {
        let stream = dial::connect(&self.place, way.port).await.map_err(unreachable)?;
        let plain = Upstream::plain(stream);
        let socket = Arc::clone(&plain.socket);
        let carrier = match way.tls {
            None => plain.carrier,
            Some(tls) => encrypted(Stream(plain.socket), tls).await.map_err(Failure::Tls)?,
        };
        let shaken = http1::Builder::new()
            .max_buf_size(LONGEST_HEAD.max(8192))
            .handshake::<_, Outgoing>(TokioIo::new(carrier))
            .await;
        let (sender, connection) = shaken.map_err(|_| Failure::Broken)?;
        let gone = self.gone.clone();
        tokio::spawn(async move {
            let ended = gone.run_until_cancelled(connection.with_upgrades()).await;
            if ended.is_none() {
                reset(&socket);
            }
        });
        Ok(sender)
    }

    /// A connection that waits for a request.
    fn take(&self, way: &Way<'_>) -> Option<Sender> {
        let mut idle = self.idle();
        let senders = idle.get_mut(&key(way))?;
        senders.retain(|sender| !sender.is_closed());
        let ready = senders.iter().rposition(Sender::is_ready)?;
        Some(senders.swap_remove(ready))
    }

    /// Keeps a connection for the next request. It is ready when this answer has been read.
    fn keep(
        &self,
        way: &Way<'_>,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Response<Incoming> {
        if response.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
            let mut idle = self.idle();
            let senders = idle.entry(key(way)).or_default();
            if senders.len() >= MOST_IDLE {
                senders.retain(|sender| !sender.is_closed());
            }
            if senders.len() < MOST_IDLE {
                senders.push(sender);
            }
        }
        response
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<(u16, bool), Vec<Sender>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

fn key(way: &Way<'_>) -> (u16, bool) {
    (way.port, way.tls.is_some())
}

fn place(sandbox: &Sandbox) -> Place {
    let head = &sandbox.head;
    Place { netns: head.netns.clone(), addresses: head.addresses.clone() }
}

/// The request once more, if sending it twice is as good as sending it once.
fn repeatable(request: &Request<Outgoing>) -> Option<Request<Empty<Bytes>>> {
    if !request.method().is_idempotent() || matches!(request.body(), Either::Left(_)) {
        return None;
    }
    let mut again = Request::new(Empty::new());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

async fn encrypted(stream: Stream, tls: &Arc<ClientConfig>) -> io::Result<Carrier> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let stream = timeout(CONNECT_WITHIN, connecting).await??;
    Ok(Carrier::Encrypted(Box::new(stream)))
}

fn unreachable(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Closed,
        _ => Failure::Unreachable(error),
    }
}
