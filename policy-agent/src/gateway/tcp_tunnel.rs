//! Raw TCP to a port of a sandbox, for SSH and other tools: CONNECT (RFC 9110, 9.3.6), with the
//! sandbox's token in any case.

use std::future;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, ext::Protocol, header::HeaderMap,
    header::PROXY_AUTHORIZATION,
};

use super::{
    Gateway,
    access_check::presented_token,
    access_log::AccessLogEntry,
    backend::{BackendError, BackendTarget},
    forwarding::TargetService,
    refusal::GatewayRefusal,
    request::RequestContext,
    response_body::GatewayResponseBody,
    service_protocol::Http2Use,
    upgrade::{self, RelayGuard},
};
use crate::{agent::Sandbox, policy::SecretString};

/// Whether a request asks for a tunnel.
pub(super) fn is_tunnel<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none()
}

/// The password of `Proxy-Authorization: Basic`, in which clients of HTTP proxies send the token. The
/// user name does not matter.
pub(super) fn basic_password(headers: &HeaderMap) -> Option<SecretString> {
    let value = headers.get(PROXY_AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(BASE64_STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (_, password) = credentials.split_once(':')?;
    Some(SecretString::new(password.to_owned()))
}

impl RequestContext {
    /// Checks that a client may open a tunnel. A public sandbox is public over HTTP only.
    ///
    /// # Errors
    /// Its network is not admitted, or it shows no valid token.
    pub(super) fn check_tunnel_access(&self, sandbox: &Sandbox) -> Result<(), GatewayRefusal> {
        self.check_client(sandbox)?;
        let token = presented_token(sandbox, |token| self.tokens.permits_tunnel(token));
        token.map(drop).ok_or_else(|| GatewayRefusal::tunnel_token_required(&self.target))
    }

    /// Connects to the port, and relays bytes in the background until either side ends, the sandbox
    /// changes or the agent stops.
    ///
    /// # Errors
    /// The port cannot be reached.
    pub(super) async fn open_tunnel(
        &self,
        gateway: &Gateway,
        service: &TargetService,
        mut request: Request<Incoming>,
        log_entry: &mut AccessLogEntry,
    ) -> Result<Response<GatewayResponseBody>, BackendError> {
        let TargetService { backend, start_window, .. } = service;
        let permit = backend.acquire_connection_permit().ok_or(BackendError::TooManyConnections)?;
        let target = BackendTarget {
            port: self.target.port,
            tls: None,
            http2_use: Http2Use::Never,
            start_window: *start_window,
        };
        let client = hyper::upgrade::on(&mut request);
        let dialed = Box::pin(backend.dial(&target, false)).await?;
        let response = Response::new(Either::Right(Full::default()));
        log_entry.set_status(StatusCode::OK);
        let held =
            RelayGuard { permit, connection: dialed.socket_permit, log_entry: log_entry.take() };
        let service = future::ready(Ok(dialed.io));
        let cancelled = upgrade::relay_cancelled(gateway, backend);
        tokio::spawn(upgrade::relay_upgraded(client, service, cancelled, held));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn password(value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(PROXY_AUTHORIZATION, HeaderValue::from_static(value));
        basic_password(&headers).map(|password| password.reveal().to_owned())
    }

    #[test]
    fn the_password_is_the_token() {
        // "x:t0ken", ":t0ken", "x:a:b"
        for value in ["Basic eDp0MGtlbg==", "basic  eDp0MGtlbg== ", "BASIC OnQwa2Vu"] {
            assert_eq!(password(value).as_deref(), Some("t0ken"), "{value}");
        }
        assert_eq!(password("Basic eDphOmI=").as_deref(), Some("a:b"));
        for value in ["", "Basic", "Basic eA==", "Basic !", "Bearer t0ken", "Basic /w=="] {
            assert_eq!(password(value), None, "{value}");
        }
    }
}
