//! The requests of one connection that the proxy has opened.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http_body_util::{Either, Full};
use hyper::{
    Request, Response, StatusCode, Uri, Version,
    body::{Bytes, Incoming},
    ext::Protocol,
    header::{self, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
};
use policy_common::reason::Reason;
use tokio::sync::Mutex;

use super::{
    alpn::AlpnChoice,
    origin::{OriginDrivers, OriginSender},
    origin_failure::OriginFailure,
    request_body::InterceptedRequestBody,
    request_check::check_request,
    response_body::{InterceptedResponseBody, OriginBody},
    rule_headers::RuleHeaders,
    upgrade,
};
use crate::{
    net::{continue_gate::ContinueGate, hop_by_hop},
    policy::{DomainName, HeaderRule, RequestedName},
    proxy::{
        admitted::AdmittedConnection,
        decision::ConnectionEnd,
        http::{
            ConnectionClosed,
            refusal_response::{Refusal, RefusalForm, refusal_response},
            remove_length_if_chunked,
        },
    },
};

/// The state of a connection.
pub(super) struct InterceptedSession {
    /// The client's connection.
    pub(super) admitted: AdmittedConnection,
    /// The name that it is for.
    pub(super) name: Arc<RequestedName>,
    pub(super) domain: DomainName,
    /// What the client speaks, and the server has to.
    pub(super) choice: AlpnChoice,
    /// The server, or `None` if a request has to connect first.
    pub(super) origin: Mutex<Option<OriginSender>>,
    pub(super) drivers: Arc<OriginDrivers>,
    /// Set if the server cannot be used. Every request is told so.
    pub(super) failure: Option<OriginFailure>,
    pub(super) has_response: AtomicBool,
    pub(super) is_last_refused: AtomicBool,
}

/// Why a request gets no response from the server.
pub(super) enum RequestFailure {
    /// There is no one to respond to, or no one who may have a response.
    Closed,
    /// The request is refused.
    Refused(Reason, Option<String>),
}

impl From<Reason> for RequestFailure {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason, None)
    }
}

impl From<OriginFailure> for RequestFailure {
    fn from(failure: OriginFailure) -> Self {
        Self::Refused(failure.reason, Some(failure.detail))
    }
}

impl From<ConnectionEnd> for RequestFailure {
    fn from(end: ConnectionEnd) -> Self {
        match end {
            ConnectionEnd::Closed => Self::Closed,
            ConnectionEnd::Refused(decision) => decision.reason.into(),
        }
    }
}

/// A response, and what has to exist as long as its body.
type GatedResponse = (Response<Incoming>, Option<ContinueGate>);

impl InterceptedSession {
    /// Checks a request, sets the headers of the rule, and forwards it.
    ///
    /// # Errors
    /// The connection is closed, so there is no one to respond to.
    pub(super) async fn handle_request(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<InterceptedResponseBody>, ConnectionClosed> {
        let form = RefusalForm::for_request(request.headers());
        match self.forward(request).await {
            Ok((response, gate)) => {
                self.has_response.store(true, Ordering::Relaxed);
                self.admitted.record_request(Reason::AllowName);
                let (head, body) = response.into_parts();
                let body = OriginBody::with_arrived(body, gate).await;
                Ok(Response::from_parts(head, Either::Left(body)))
            }
            Err(RequestFailure::Closed) => Err(ConnectionClosed),
            Err(RequestFailure::Refused(reason, detail)) => {
                Ok(self.refuse(reason, detail.as_deref(), form).map(Either::Right))
            }
        }
    }

    /// Records a request that the HTTP library has refused, and answered.
    pub(super) fn record_unparsed(&self) {
        self.is_last_refused.store(true, Ordering::Relaxed);
        self.admitted.record_refused_request(&self.name, Reason::NotJudgeable.into());
    }

    fn refuse(
        &self,
        reason: Reason,
        detail: Option<&str>,
        form: RefusalForm,
    ) -> Response<Full<Bytes>> {
        self.is_last_refused.store(true, Ordering::Relaxed);
        let decision = reason.into();
        let refusal = Refusal {
            sandbox: &self.admitted.sandbox_proxy.sandbox,
            decision: &decision,
            address: self.admitted.original_destination().ip(),
            name: Some(self.name.as_str()),
            detail,
        };
        let mut response = refusal_response(&refusal, form);
        if self.choice == AlpnChoice::Http2 {
            response.headers_mut().remove(header::CONNECTION);
        }
        self.admitted.record_refused_request(&self.name, decision);
        response
    }

    async fn forward(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<GatedResponse, RequestFailure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone().into());
        }
        check_request(&request, &self.domain)?;
        let active_policy = self.admitted.active_policy();
        // Without the rule, the connection is about to be reset.
        let rule = active_policy.header_rule_for(&self.domain);
        let headers = self.render(rule.ok_or(RequestFailure::Closed)?)?;
        match self.choice {
            AlpnChoice::Http2 => self.forward_http2(request, headers).await,
            AlpnChoice::Http1 | AlpnChoice::Nothing => self.forward_http1(request, headers).await,
        }
    }

    fn render(&self, rule: &HeaderRule) -> Result<RuleHeaders, RequestFailure> {
        let secrets = &self.admitted.context().interception.secrets;
        RuleHeaders::render(rule, secrets).map_err(|error| {
            RequestFailure::Refused(Reason::SecretUnknown, Some(error.to_string()))
        })
    }

    async fn forward_http1(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        headers: RuleHeaders,
    ) -> Result<GatedResponse, RequestFailure> {
        let wants_upgrade = hop_by_hop::rewrite_for_upstream(&mut request);
        let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let names = headers.names();
        headers.apply(&mut request);
        let (request, gate) = InterceptedRequestBody::wrap(request, names);
        let (mut response, sender) = self.send(request).await?;
        match (response.status(), client) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                let server = hyper::upgrade::on(&mut response);
                tokio::spawn(upgrade::relay_upgraded(Arc::clone(self), client, server));
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => return Err(Reason::BadResponse.into()),
            _ => {
                hop_by_hop::strip_hop_by_hop(response.headers_mut());
                remove_length_if_chunked(response.headers_mut());
                *response.version_mut() = Version::HTTP_11;
                if gate.as_ref().is_some_and(|gate| !gate.is_open()) {
                    // The server does not want the body, which is still to come.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                } else {
                    *self.origin.lock().await = Some(sender);
                }
            }
        }
        Ok((response, gate))
    }

    async fn forward_http2(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        headers: RuleHeaders,
    ) -> Result<GatedResponse, RequestFailure> {
        let is_connect = request.extensions().get::<Protocol>().is_some();
        let client = is_connect.then(|| hyper::upgrade::on(&mut request));
        self.set_http2_target(&mut request)?;
        let names = headers.names();
        headers.apply(&mut request);
        let (request, gate) = InterceptedRequestBody::wrap(request, names);
        let (mut response, _) = self.send(request).await?;
        if let Some(client) = client.filter(|_| response.status() == StatusCode::OK) {
            let server = hyper::upgrade::on(&mut response);
            tokio::spawn(upgrade::relay_upgraded(Arc::clone(self), client, server));
        }
        Ok((response, gate))
    }

    /// Writes the target in one form: HTTPS, the authority, and no `Host` beside it.
    fn set_http2_target(&self, request: &mut Request<Incoming>) -> Result<(), RequestFailure> {
        let invalid = |_| RequestFailure::from(Reason::InvalidName);
        let host = request.headers_mut().remove(header::HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        if parts.authority.is_none() {
            let host = host.as_ref().map_or(self.name.as_str().as_bytes(), HeaderValue::as_bytes);
            let parsed = Authority::try_from(host);
            parts.authority = Some(parsed.map_err(|_| Reason::InvalidName)?);
        }
        parts.scheme = Some(Scheme::HTTPS);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(invalid)?;
        *request.version_mut() = Version::HTTP_2;
        Ok(())
    }
}
