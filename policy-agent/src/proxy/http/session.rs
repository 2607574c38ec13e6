//! The requests of one connection, one after the other.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use http_body_util::Either;
use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderMap},
};
use hyper_util::rt::TokioIo;
use policy_common::reason::Reason;
use tokio::task::AbortHandle;

use super::{
    LONGEST_HEAD, MOST_FIELDS,
    answer::{Body, refusal},
    request, upgrade,
};
use crate::{
    net::hop,
    proxy::{
        claim::{Claim, Pass},
        counts::Protocol,
        dial::{Target, dial},
        socket::{Socket, reset},
        upstream::Upstream,
        verdict::{End, Subject},
    },
};

/// A connection, between and during its requests.
pub struct Session {
    /// Whose it is.
    pub claim: Claim,
    server: Mutex<Option<Server>>,
    begun: AtomicBool,
    let_out: AtomicBool,
    refused: AtomicBool,
}

/// The server that the last request went to.
struct Server {
    name: Option<Arc<str>>,
    sender: SendRequest<Incoming>,
    driver: Driver,
}

/// The task that reads and writes a server's connection. It ends with whoever needs it.
pub struct Driver {
    task: AbortHandle,
    socket: Socket,
}

impl Driver {
    /// The server's side.
    pub fn socket(&self) -> Socket {
        Arc::clone(&self.socket)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

impl Session {
    /// A connection without requests.
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            server: Mutex::default(),
            begun: AtomicBool::new(false),
            let_out: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    /// Whether there was a request.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether the last request was refused.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Resets both sides.
    pub fn reset(&self) {
        reset(&self.claim.client);
        if let Some(server) = self.take() {
            reset(&server.driver.socket);
        }
    }

    /// Judges a request; lets it go on, or refuses it.
    ///
    /// # Errors
    /// There is nobody to answer.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Closed> {
        self.begun.store(true, Ordering::Relaxed);
        let name = match request::asked(&request) {
            Ok(name) => name.map(Arc::<str>::from),
            Err(reason) => return self.refuse(None, reason.into()),
        };
        match self.forward(request, &name).await {
            Ok(response) => Ok(response.map(Either::Left)),
            Err(end) => self.refuse(name.as_deref(), end),
        }
    }

    fn refuse(&self, name: Option<&str>, end: End) -> Result<Response<Body>, Closed> {
        let End::Refused(grounds) = end else { return Err(Closed) };
        self.refused.store(true, Ordering::Relaxed);
        let answer = refusal(grounds.reason, name);
        self.claim.refuse(Protocol::Http, name, grounds);
        Ok(answer)
    }

    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        name: &Option<Arc<str>>,
    ) -> Result<Response<Incoming>, End> {
        let pass = self.claim.judge(&Subject::Name(name.clone()))?;
        let asks_for_other = hop::send_on(&mut request);
        let client = asks_for_other.then(|| hyper::upgrade::on(&mut request));
        let (mut response, server) = self.send(request, name, pass).await?;
        match (response.status(), client) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                let there = hyper::upgrade::on(&mut response);
                tokio::spawn(upgrade::join(Arc::clone(self), client, there, server.driver));
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => return Err(Reason::BadResponse.into()),
            _ => {
                hop::strip(response.headers_mut());
                one_length(response.headers_mut());
                *response.version_mut() = Version::HTTP_11;
                self.keep(server);
            }
        }
        Ok(response)
    }

    /// Sends a request to the server that has the name, and waits for the head of its answer.
    async fn send(
        &self,
        mut request: Request<Incoming>,
        name: &Option<Arc<str>>,
        pass: Pass,
    ) -> Result<(Response<Incoming>, Server), End> {
        if let Some(mut server) = self.take().filter(|server| server.name == *name)
            && server.sender.ready().await.is_ok()
        {
            match server.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, server)),
                // It has just been closed: a new one gets the request, which nobody has seen yet.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(kept_alive(error.error())),
                },
            }
        }
        let mut server = self.connect(name, pass).await?;
        let response = server.sender.send_request(request).await;
        Ok((response.map_err(|error| End::from(no_response(&error)))?, server))
    }

    async fn connect(&self, name: &Option<Arc<str>>, pass: Pass) -> Result<Server, End> {
        let claim = &self.claim;
        let target = Target::new(claim.destination(), name.as_deref());
        // Boxed, since the connection keeps room for it as long as it lasts.
        let Upstream { socket, carrier } =
            Box::pin(dial(claim.means(), &pass.rules, &target)).await?;
        claim.attach(&socket)?;
        if !self.let_out.swap(true, Ordering::Relaxed) {
            claim.let_out(Protocol::Http, name.as_deref(), pass.grounds);
        }
        let mut client = http1::Builder::new();
        client
            .preserve_header_case(true)
            .max_buf_size(LONGEST_HEAD)
            .max_headers(MOST_FIELDS)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true);
        let shaken = client.handshake(TokioIo::new(carrier)).await;
        let (sender, connection) = shaken.map_err(|error| End::from(no_response(&error)))?;
        let task = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(Server { name: name.clone(), sender, driver: Driver { task, socket } })
    }

    fn take(&self) -> Option<Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, server: Server) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }
}

/// Why there is no response.
fn no_response(error: &hyper::Error) -> Reason {
    if error.is_parse() { Reason::BadResponse } else { Reason::ServerBrokeOff }
}

/// The same on a connection that had requests before. A server may end it at any moment, and whether it
/// has seen the request nobody knows. So the client's connection ends likewise, without an answer:
/// clients know this case, and send again what may be sent twice (RFC 9110, 9.2.2).
fn kept_alive(error: &hyper::Error) -> End {
    match no_response(error) {
        Reason::ServerBrokeOff => End::Gone,
        reason => reason.into(),
    }
}

/// A response with chunks says nothing of a length: whoever believed it would find another end (RFC
/// 9112, 6.3).
fn one_length(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
}
