//! Handles the requests of one connection, one after the other.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use http_body_util::Either;
use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    client::conn::http1::SendRequest,
    header::{self, HeaderMap},
};
use hyper_util::rt::TokioIo;
use policy_common::reason::Reason;
use tokio::task::AbortHandle;

use super::{
    MAX_RESPONSE_HEADERS,
    refusal_response::{ProxyResponseBody, Refusal, RefusalForm, refusal_response},
    request_host, upgrade_relay,
};
use crate::{
    net::hop_by_hop,
    policy::RequestedName,
    proxy::{
        admitted::{AdmittedConnection, AllowDecision},
        decision::{ConnectionEnd, MatchKey},
        dial::{DialTarget, dial},
        proxy_metrics::ConnectionProtocol,
        sandbox_info::{self, is_info_host},
        socket::{SharedSocket, reset_connection},
        upstream::{UpstreamConnection, lenient_http1_client},
    },
};

/// The HTTP state of a connection.
pub(super) struct HttpSession {
    /// The client's connection.
    pub admitted: AdmittedConnection,
    upstream: Mutex<Option<HttpUpstream>>,
    has_received_request: AtomicBool,
    is_allow_recorded: AtomicBool,
    is_last_refused: AtomicBool,
}

/// The upstream of the last request.
struct HttpUpstream {
    name: Option<Arc<RequestedName>>,
    sender: SendRequest<Incoming>,
    driver: UpstreamDriver,
}

/// The task that drives an upstream connection. Dropping the handle aborts it.
pub(super) struct UpstreamDriver {
    task: AbortHandle,
    socket: SharedSocket,
}

impl UpstreamDriver {
    /// The upstream socket.
    pub(super) fn socket(&self) -> SharedSocket {
        Arc::clone(&self.socket)
    }
}

impl Drop for UpstreamDriver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connection ends without a response.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
pub(in crate::proxy) struct ConnectionClosed;

impl HttpSession {
    /// A session without requests.
    pub(super) fn new(admitted: AdmittedConnection) -> Self {
        Self {
            admitted,
            upstream: Mutex::default(),
            has_received_request: AtomicBool::new(false),
            is_allow_recorded: AtomicBool::new(false),
            is_last_refused: AtomicBool::new(false),
        }
    }

    /// Whether a request has been received.
    pub(super) fn has_received_request(&self) -> bool {
        self.has_received_request.load(Ordering::Relaxed)
    }

    /// Whether the last request was refused.
    pub(super) fn is_last_refused(&self) -> bool {
        self.is_last_refused.load(Ordering::Relaxed)
    }

    /// Resets both sides.
    pub(super) fn reset(&self) {
        reset_connection(&self.admitted.client);
        if let Some(upstream) = self.take_upstream() {
            reset_connection(&upstream.driver.socket);
        }
    }

    /// Decides on a request, then forwards or refuses it.
    ///
    /// # Errors
    /// The connection is closed, so there is no one to respond to.
    pub(super) async fn handle_request(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<ProxyResponseBody>, ConnectionClosed> {
        self.has_received_request.store(true, Ordering::Relaxed);
        let form = RefusalForm::for_request(request.headers());
        let name = match request_host::requested_host(&request) {
            Ok(name) => name.map(|name| Arc::new(RequestedName::parse(name))),
            Err(reason) => return self.refuse_request(None, reason.into(), form),
        };
        if let Some(name) = &name
            && is_info_host(self.admitted.context().info_host.as_ref(), name)
        {
            self.admitted.release_decision_permit();
            let answer = sandbox_info::respond(&self.admitted.sandbox_proxy, &request).await;
            return Ok(answer.map(Either::Right));
        }
        match self.forward_request(request, &name).await {
            Ok(response) => Ok(response.map(Either::Left)),
            Err(end) => self.refuse_request(name.as_deref(), end, form),
        }
    }

    fn refuse_request(
        &self,
        name: Option<&RequestedName>,
        end: ConnectionEnd,
        form: RefusalForm,
    ) -> Result<Response<ProxyResponseBody>, ConnectionClosed> {
        let ConnectionEnd::Refused(decision) = end else { return Err(ConnectionClosed) };
        self.is_last_refused.store(true, Ordering::Relaxed);
        let refusal = Refusal {
            sandbox: &self.admitted.sandbox_proxy.sandbox,
            decision: &decision,
            address: self.admitted.original_destination().ip(),
            name: name.map(RequestedName::as_str),
            detail: None,
        };
        let answer = refusal_response(&refusal, form).map(Either::Right);
        self.admitted.record_refused(ConnectionProtocol::Http, name, decision);
        Ok(answer)
    }

    async fn forward_request(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        name: &Option<Arc<RequestedName>>,
    ) -> Result<Response<Incoming>, ConnectionEnd> {
        let allowed = self.admitted.decide(&MatchKey::Name(name.clone()))?;
        let wants_upgrade = hop_by_hop::rewrite_for_upstream(&mut request);
        let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let (mut response, upstream) = self.send_request(request, name, allowed).await?;
        match (response.status(), client) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                let server = hyper::upgrade::on(&mut response);
                tokio::spawn(upgrade_relay::relay_upgraded(
                    Arc::clone(self),
                    client,
                    server,
                    upstream.driver,
                ));
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => return Err(Reason::BadResponse.into()),
            _ => {
                hop_by_hop::strip_hop_by_hop(response.headers_mut());
                remove_length_if_chunked(response.headers_mut());
                *response.version_mut() = Version::HTTP_11;
                self.keep_upstream(upstream);
            }
        }
        Ok(response)
    }

    /// Sends a request to the upstream of this name and waits for the head of its response.
    async fn send_request(
        &self,
        mut request: Request<Incoming>,
        name: &Option<Arc<RequestedName>>,
        allowed: AllowDecision,
    ) -> Result<(Response<Incoming>, HttpUpstream), ConnectionEnd> {
        if let Some(mut upstream) = self.take_upstream().filter(|server| server.name == *name)
            && upstream.sender.ready().await.is_ok()
        {
            match upstream.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, upstream)),
                // The upstream has just closed the connection, before it received the request. A
                // new connection gets it.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(reused_connection_end(error.error())),
                },
            }
        }
        let mut upstream = self.connect_upstream(name, allowed).await?;
        let response = upstream.sender.send_request(request).await;
        Ok((
            response.map_err(|error| ConnectionEnd::from(missing_response_reason(&error)))?,
            upstream,
        ))
    }

    async fn connect_upstream(
        &self,
        name: &Option<Arc<RequestedName>>,
        allowed: AllowDecision,
    ) -> Result<HttpUpstream, ConnectionEnd> {
        let admitted = &self.admitted;
        let target = DialTarget::new(admitted.original_destination(), name.as_deref());
        // Boxed because the connection would reserve space for it as long as it lasts otherwise.
        let UpstreamConnection { socket, io } =
            Box::pin(dial(&admitted.sandbox_proxy, &allowed.active_policy, &target)).await?;
        admitted.attach_upstream(&socket)?;
        if self.is_allow_recorded.swap(true, Ordering::Relaxed) {
            admitted.record_next_name(name.as_deref(), allowed.decision);
        } else {
            admitted.record_allowed(ConnectionProtocol::Http, name.as_deref(), allowed.decision);
        }
        let mut client = lenient_http1_client(MAX_RESPONSE_HEADERS);
        client.preserve_header_case(true);
        let handshake = client.handshake(TokioIo::new(io)).await;
        let (sender, connection) =
            handshake.map_err(|error| ConnectionEnd::from(missing_response_reason(&error)))?;
        let task = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(HttpUpstream { name: name.clone(), sender, driver: UpstreamDriver { task, socket } })
    }

    fn take_upstream(&self) -> Option<HttpUpstream> {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep_upstream(&self, upstream: HttpUpstream) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    }
}

/// The reason for a missing response.
pub(in crate::proxy) fn missing_response_reason(error: &hyper::Error) -> Reason {
    if error.is_parse() { Reason::BadResponse } else { Reason::ServerBrokeOff }
}

/// The same for a connection that has served requests before. A server may close it at any moment,
/// and it is unknown whether it has seen the request. So the client's connection also closes
/// without a response: clients handle this case and repeat idempotent requests (RFC 9110, 9.2.2).
fn reused_connection_end(error: &hyper::Error) -> ConnectionEnd {
    match missing_response_reason(error) {
        Reason::ServerBrokeOff => ConnectionEnd::Closed,
        reason => reason.into(),
    }
}

/// Removes `Content-Length` from a chunked response. A client that honored it would find another
/// end of the message (RFC 9112, 6.3).
pub(in crate::proxy) fn remove_length_if_chunked(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
}
