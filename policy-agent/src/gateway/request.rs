//! Handles one request, from the client to a service in a sandbox and back.
//!
//! ```text
//! traffic_token ─► target ─► sandbox ─► authorize ─► permit ─► backend_request
//!                   400  │    502      403, 204, 303   429          │
//!                        └ envd: 404 for operator paths             └► backend ─► backend_response
//!                                                                       502
//! ```

use std::sync::Arc;

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
};

use super::{
    Gateway,
    backend::{BackendError, BackendTarget, SandboxBackend},
    backend_request::{self, RequestRewrite},
    backend_response, cors, envd,
    gateway_metrics::AccessLogEntry,
    refusal::{GatewayRefusal, RefusalFormat},
    response_body::{BackendResponseBody, GatewayResponseBody, ResponseConnection},
    service_protocol::Http2Use,
    target::{self, SandboxTarget},
    token_redirect,
    traffic_token::PresentedTokens,
    trusted_proxies::{ConnectionPeer, RequestClient},
    upgrade, websocket,
};
use crate::agent::{EnforcementStatus, Sandbox};

/// Handles any request and returns its response.
pub(super) async fn handle_request(
    gateway: Arc<Gateway>,
    mut request: Request<Incoming>,
    peer: ConnectionPeer,
) -> Response<GatewayResponseBody> {
    let format = RefusalFormat::from_headers(request.headers());
    let client = gateway.trusted_proxies.client_of(peer, request.headers());
    let tokens = PresentedTokens::strip_from(&mut request);
    let mut log_entry = AccessLogEntry::for_request(&request, client.address, &gateway.metrics);
    let checked = backend_request::check_head(&request);
    let target = checked.and_then(|()| websocket::check_connect(&request)).and_then(|()| {
        let target = target::parse_target(&request, &gateway.domain, client.host.as_deref());
        target.map_err(GatewayRefusal::bad_request)
    });
    let outcome = match target {
        Ok(target) => {
            log_entry.set_target(&target);
            RequestContext { client, target, tokens }.forward(&gateway, request).await
        }
        Err(refusal) => Err(refusal),
    };
    let response =
        outcome.unwrap_or_else(|refusal| refusal.to_response(&format).map(Either::Right));
    log_entry.finish(response.status());
    response
}

/// A request's client, target and tokens.
struct RequestContext {
    client: RequestClient,
    target: SandboxTarget,
    tokens: PresentedTokens,
}

impl RequestContext {
    async fn forward(
        &self,
        gateway: &Gateway,
        request: Request<Incoming>,
    ) -> Result<Response<GatewayResponseBody>, GatewayRefusal> {
        let target = &self.target;
        let is_envd = target.port == gateway.envd_port;
        if is_envd && envd::is_operator_path(request.uri().path()) {
            return Err(GatewayRefusal::path_not_public(target));
        }
        let registered = gateway.sandboxes.get(&target.sandbox);
        let sandbox = registered.ok_or_else(|| GatewayRefusal::unknown_sandbox(target))?;
        if !is_envd
            && !sandbox.active_policy.policy.allow_public_traffic()
            && let Some(response) = self.authorize(gateway, &sandbox, &request)?
        {
            return Ok(response.map(Either::Right));
        }
        if sandbox.status == EnforcementStatus::InterfaceMissing {
            return Err(GatewayRefusal::service_unavailable(
                target,
                "the sandbox's network interface is gone",
            ));
        }
        let is_health_check =
            is_envd && request.method() == Method::GET && request.uri().path() == "/health";
        let backend = gateway.backends.get_or_create(&sandbox);
        // A health check must report at once, without waiting for a service to start.
        let retry_refused = !is_health_check;
        match self.send_to_backend(gateway, &sandbox, &backend, request, retry_refused).await {
            Ok(response) => Ok(response),
            Err(BackendError::PortClosed) if is_health_check => Ok(health_response()),
            Err(error @ BackendError::InvalidRequestBody) => {
                Err(GatewayRefusal::bad_request(error.to_string()))
            }
            Err(BackendError::TooManyConnections) => {
                Err(GatewayRefusal::too_many_connections(target))
            }
            Err(error) => Err(GatewayRefusal::service_unavailable(target, &error.to_string())),
        }
    }

    /// Authorizes a request to a private sandbox. Returns `None` if it may be forwarded, or the
    /// gateway's own response.
    fn authorize(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        request: &Request<Incoming>,
    ) -> Result<Option<Response<Full<Bytes>>>, GatewayRefusal> {
        let token = sandbox.lifetime.traffic_token();
        let by_cookie =
            || self.tokens.contains(token) && !self.is_from_other_sandbox(gateway, request);
        if !self.tokens.contains_outside_cookies(token) && !by_cookie() {
            let refusal = GatewayRefusal::token_required(&self.target);
            return cors::is_preflight(request)
                .then(|| Some(cors::preflight_response(request)))
                .ok_or(refusal);
        }
        let needs_redirect =
            self.tokens.query_contains(token) && token_redirect::is_page_navigation(request);
        let redirect = || token_redirect::token_redirect(request.uri(), token, self.client.scheme);
        Ok(needs_redirect.then(redirect).flatten())
    }

    /// Whether the request comes from a page of another sandbox. Browsers consider all sandboxes
    /// one site, so such requests carry the user's cookie for this one.
    fn is_from_other_sandbox(&self, gateway: &Gateway, request: &Request<Incoming>) -> bool {
        let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let sandbox = origin.and_then(|origin| target::sandbox_of_origin(origin, &gateway.domain));
        sandbox.is_some_and(|sandbox| sandbox != self.target.sandbox)
    }

    async fn send_to_backend(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        backend: &SandboxBackend,
        mut request: Request<Incoming>,
        retry_refused: bool,
    ) -> Result<Response<GatewayResponseBody>, BackendError> {
        let permit = backend.acquire_connection_permit().ok_or(BackendError::TooManyConnections)?;
        let (port, policy) = (self.target.port, &sandbox.active_policy.policy);
        let mask = policy.mask_request_host().filter(|_| port != gateway.envd_port);
        let mask = mask.map(|mask| mask.render(port));
        let is_tls = policy.https_ports().contains(&port);
        let rewrite = RequestRewrite {
            client: &self.client,
            requested_host: &self.target.host,
            backend_host: mask.as_deref().unwrap_or(&self.target.host),
        };
        let http2_use = Http2Use::for_request(&request, port, &gateway.http2_ports);
        let is_connect = websocket::is_extended_connect(&request);
        let offers_upgrade = rewrite.apply(&mut request) || is_connect;
        let client = offers_upgrade.then(|| hyper::upgrade::on(&mut request));
        let tls = is_tls.then_some(&gateway.backend_tls);
        let backend_target = BackendTarget { port, tls, http2_use, retry_refused };
        let request = request.map(backend_request::backend_body);
        let (mut response, connection) = backend.send_request(&backend_target, request).await?;
        *response.version_mut() = Version::HTTP_11;
        let is_switched = match connection {
            ResponseConnection::Http1(_) => response.status() == StatusCode::SWITCHING_PROTOCOLS,
            ResponseConnection::Http2(_) => is_connect && response.status() == StatusCode::OK,
        };
        if is_connect {
            websocket::to_connect_response(&mut response, is_switched)?;
        }
        match client {
            Some(client) if is_switched => {
                let service = hyper::upgrade::on(&mut response);
                let retired = backend.retired().clone().cancelled_owned();
                let draining = gateway.drain.draining_owned();
                let cancelled = async move {
                    tokio::select! {
                        () = retired => {}
                        () = draining => {}
                    }
                };
                let held = (permit, connection);
                tokio::spawn(upgrade::relay_upgraded(client, service, cancelled, held));
                Ok(response.map(|_| Either::Right(Full::default())))
            }
            _ if response.status().is_informational() => Err(BackendError::InvalidResponse),
            _ => {
                backend_response::sanitize_response(&mut response)?;
                if matches!(&connection, ResponseConnection::Http1(it) if it.is_body_unwanted()) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok(response
                    .map(|body| Either::Left(BackendResponseBody::new(body, connection, permit))))
            }
        }
    }
}

fn health_response() -> Response<GatewayResponseBody> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
