//! Forwards a request that may be forwarded, and its response.

use std::{sync::Arc, time::Duration};

use http_body_util::{Either, Full};
use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Gateway,
    access_log::AccessLogEntry,
    backend::{BackendError, BackendTarget, SandboxBackend},
    backend_request::{self, RequestRewrite},
    backend_response,
    request::RequestContext,
    response_body::{BackendResponseBody, GatewayResponseBody, ResponseConnection},
    service_protocol::Http2Use,
    upgrade::{self, RelayGuard},
    websocket,
};
use crate::agent::Sandbox;

/// A service in a sandbox.
pub(super) struct TargetService {
    /// The sandbox.
    pub sandbox: Arc<Sandbox>,
    /// Its services.
    pub backend: Arc<SandboxBackend>,
    /// How long to retry refused connections.
    pub start_window: Duration,
}

impl RequestContext {
    /// Sends a request to its service.
    ///
    /// # Errors
    /// There is no valid response.
    pub(super) async fn send_to(
        &self,
        gateway: &Gateway,
        service: &TargetService,
        mut request: Request<Incoming>,
        log_entry: &mut AccessLogEntry,
    ) -> Result<Response<GatewayResponseBody>, BackendError> {
        let TargetService { sandbox, backend, start_window } = service;
        let permit = backend.acquire_connection_permit().ok_or(BackendError::TooManyConnections)?;
        let (port, policy) = (self.target.port, &sandbox.active_policy.policy);
        let http2_use = Http2Use::for_request(&request, port, &gateway.http2_ports);
        let is_connect = websocket::is_extended_connect(&request);
        let offers_upgrade = self.rewrite(gateway, sandbox, &mut request) || is_connect;
        let client = offers_upgrade.then(|| hyper::upgrade::on(&mut request));
        let tls = policy.https_ports().contains(&port).then_some(&gateway.backend_tls);
        let start_window = *start_window;
        let backend_target = BackendTarget { port, tls, http2_use, start_window };
        let request = request.map(|body| backend_request::backend_body(body, log_entry));
        let (mut response, connection) = backend.send_request(&backend_target, request).await?;
        *response.version_mut() = Version::HTTP_11;
        let is_switched = match connection {
            ResponseConnection::Http1(_) => response.status() == StatusCode::SWITCHING_PROTOCOLS,
            ResponseConnection::Http2(_) => is_connect && response.status() == StatusCode::OK,
        };
        if is_connect {
            websocket::to_connect_response(&mut response, is_switched)?;
        }
        let Some(client) = client.filter(|_| is_switched) else {
            return ordinary_response(response, connection, permit);
        };
        log_entry.set_status(response.status());
        let held = RelayGuard { permit, connection, log_entry: log_entry.take() };
        Ok(relay(gateway, backend, client, response, held))
    }

    /// Rewrites a request for the service. Returns whether it offers a protocol upgrade.
    fn rewrite(
        &self,
        gateway: &Gateway,
        sandbox: &Sandbox,
        request: &mut Request<Incoming>,
    ) -> bool {
        let port = self.target.port;
        let mask = sandbox.active_policy.policy.mask_request_host();
        let mask = mask.filter(|_| port != gateway.envd_port).map(|mask| mask.render(port));
        let rewrite = RequestRewrite {
            client: &self.client,
            requested_host: &self.target.host,
            backend_host: mask.as_deref().unwrap_or(&self.target.host),
        };
        rewrite.apply(request)
    }
}

fn ordinary_response(
    mut response: Response<Incoming>,
    connection: ResponseConnection,
    permit: OwnedSemaphorePermit,
) -> Result<Response<GatewayResponseBody>, BackendError> {
    if response.status().is_informational() {
        return Err(BackendError::InvalidResponse);
    }
    backend_response::sanitize_response(&mut response)?;
    if matches!(&connection, ResponseConnection::Http1(it) if it.is_body_unwanted()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Either::Left(BackendResponseBody::new(body, connection, permit))))
}

/// Relays an upgraded connection, until the sandbox changes or the agent stops.
fn relay(
    gateway: &Gateway,
    backend: &SandboxBackend,
    client: OnUpgrade,
    mut response: Response<Incoming>,
    held: RelayGuard<ResponseConnection>,
) -> Response<GatewayResponseBody> {
    let service = upgrade::upgraded_service(hyper::upgrade::on(&mut response));
    let cancelled = upgrade::relay_cancelled(gateway, backend);
    tokio::spawn(upgrade::relay_upgraded(client, service, cancelled, held));
    response.map(|_| Either::Right(Full::default()))
}
