//! Handles one request, from the client to a service in a sandbox and back.
//!
//! ```text
//! traffic_token ─► target ─► sandbox ─► access_check ─► forwarding: permit ─► backend_request
//!                   400  │    502      403, 204, 303   429          │
//!                        └ envd: 404 for operator paths             └► backend ─► backend_response
//!                                                                       502
//! ```

use std::{sync::Arc, time::Duration};

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
};

use super::{
    Gateway,
    access_log::{AccessLogEntry, RequestOutcome},
    backend::BackendError,
    backend_request, envd,
    forwarding::TargetService,
    refusal::{GatewayRefusal, RefusalFormat},
    response_body::GatewayResponseBody,
    target::{self, SandboxTarget},
    tcp_tunnel,
    traffic_token::PresentedTokens,
    trusted_proxies::{ConnectionPeer, RequestClient},
    websocket,
};
use crate::agent::EnforcementStatus;

/// How long a request waits for a sandbox that is being created.
const CREATION_TIMEOUT: Duration = Duration::from_secs(10);

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
    let target = checked
        .and_then(|()| websocket::check_connect(&request, gateway.allows_tunnels))
        .and_then(|()| {
            let target = target::parse_target(&request, &gateway.domains, client.host.as_deref());
            target.map_err(GatewayRefusal::bad_request)
        });
    let outcome = match target {
        Ok(target) => {
            log_entry.set_target(&target);
            let context = RequestContext { client, target, tokens };
            context.forward(&gateway, request, &mut log_entry).await
        }
        Err(refusal) => Err(refusal),
    };
    let mut response =
        outcome.unwrap_or_else(|refusal| refusal.to_response(&format).map(Either::Right));
    log_response(&mut response, log_entry);
    response
}

/// Logs a request when its response has ended. A response of the gateway itself has ended now.
fn log_response(response: &mut Response<GatewayResponseBody>, mut log_entry: AccessLogEntry) {
    log_entry.set_status(response.status());
    match response.body_mut() {
        Either::Left(body) => body.set_log_entry(log_entry),
        Either::Right(body) => {
            log_entry.add_sent(body.size_hint().exact().unwrap_or_default());
            log_entry.set_outcome(RequestOutcome::NotForwarded);
        }
    }
}

/// A request's client, target and tokens.
pub(super) struct RequestContext {
    /// The original client.
    pub client: RequestClient,
    /// The sandbox and port.
    pub target: SandboxTarget,
    /// The tokens that the client presented.
    pub tokens: PresentedTokens,
}

impl RequestContext {
    async fn forward(
        &self,
        gateway: &Gateway,
        request: Request<Incoming>,
        log_entry: &mut AccessLogEntry,
    ) -> Result<Response<GatewayResponseBody>, GatewayRefusal> {
        let target = &self.target;
        let is_envd = target.port == gateway.envd_port;
        let is_tunnel = tcp_tunnel::is_tunnel(&request);
        // What a tunnel carries could be a request for such a path.
        if is_envd && (is_tunnel || envd::is_operator_path(request.uri().path())) {
            return Err(GatewayRefusal::path_not_public(target));
        }
        let registered = gateway.sandboxes.get_or_await(&target.sandbox, CREATION_TIMEOUT).await;
        let sandbox = registered.ok_or_else(|| GatewayRefusal::unknown_sandbox(target))?;
        if is_tunnel {
            self.check_tunnel_access(&sandbox)?;
        } else if let Some(response) = self.check_access(gateway, &sandbox, &request)? {
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
        let start_window =
            if is_health_check { Duration::ZERO } else { gateway.start_window(&sandbox) };
        let service = TargetService { sandbox, backend, start_window };
        let served = match is_tunnel {
            true => self.open_tunnel(gateway, &service, request, log_entry).await,
            false => self.send_to(gateway, &service, request, log_entry).await,
        };
        let error = match served {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        log_entry.set_outcome(RequestOutcome::from(&error));
        match error {
            BackendError::PortClosed if is_health_check => Ok(health_response()),
            error @ BackendError::InvalidRequestBody => {
                Err(GatewayRefusal::bad_request(error.to_string()))
            }
            BackendError::TooManyConnections => Err(GatewayRefusal::too_many_connections(target)),
            error => Err(GatewayRefusal::service_unavailable(target, &error.to_string())),
        }
    }
}

fn health_response() -> Response<GatewayResponseBody> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
