//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT from the client, and an upgrade or
//! another extended CONNECT towards the service.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper::{
    Method, Request, Response, StatusCode,
    ext::Protocol,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use super::{backend::BackendError, refusal::GatewayRefusal};

const PROTOCOL: &str = "websocket";
const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;

/// Whether a request opens a WebSocket by extended CONNECT.
pub(super) fn is_extended_connect<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some()
}

/// Checks the method of a request.
///
/// # Errors
/// It is CONNECT for anything but a WebSocket, or a tunnel where those are allowed.
pub(super) fn check_connect<B>(
    request: &Request<B>,
    allows_tunnels: bool,
) -> Result<(), GatewayRefusal> {
    if request.method() != Method::CONNECT {
        return Ok(());
    }
    let is_served = match request.extensions().get::<Protocol>() {
        Some(protocol) => protocol.as_str().eq_ignore_ascii_case(PROTOCOL),
        None => allows_tunnels,
    };
    is_served.then_some(()).ok_or_else(GatewayRefusal::connect_not_supported)
}

/// Turns an extended CONNECT into the upgrade that HTTP/1 services expect (RFC 6455, 4.1).
///
/// # Errors
/// The system has no random bytes.
pub(super) fn into_upgrade<B>(request: &mut Request<B>) -> Result<(), BackendError> {
    request.extensions_mut().remove::<Protocol>();
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(KEY, random_key()?);
    Ok(())
}

/// Turns a service's response to either form into the response to an extended CONNECT.
///
/// # Errors
/// The service declined with a status that would open the WebSocket.
pub(super) fn to_connect_response<B>(
    response: &mut Response<B>,
    is_accepted: bool,
) -> Result<(), BackendError> {
    if is_accepted {
        *response.status_mut() = StatusCode::OK;
        remove_handshake_fields(response.headers_mut());
    } else if response.status().is_success() {
        return Err(BackendError::InvalidResponse);
    }
    Ok(())
}

fn remove_handshake_fields(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::UPGRADE, ACCEPT, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
}

fn random_key() -> Result<HeaderValue, BackendError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| BackendError::InvalidResponse)?;
    let key = BASE64_STANDARD.encode(random);
    HeaderValue::try_from(key).map_err(|_| BackendError::InvalidResponse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(protocol: Option<&'static str>) -> Request<()> {
        let mut request = Request::connect("http://3000-a.example.com/x").body(()).expect("built");
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        request
    }

    #[test]
    fn only_web_sockets_and_allowed_tunnels_are_connected() {
        for allows_tunnels in [false, true] {
            let check = |request| check_connect(&request, allows_tunnels);
            assert!(check(connect(Some("websocket"))).is_ok());
            assert!(check(connect(Some("connect-udp"))).is_err());
            assert_eq!(check(connect(None)).is_ok(), allows_tunnels);
            assert!(check(Request::get("/").body(()).expect("built")).is_ok());
        }
    }

    #[test]
    fn an_http1_service_sees_an_upgrade() {
        let mut request = connect(Some("websocket"));
        into_upgrade(&mut request).expect("random bytes");
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.headers()["upgrade"], "websocket");
        let key = request.headers()["sec-websocket-key"].to_str().expect("text").to_owned();
        assert!(key.len() == 24 && key.ends_with("==") && !key[..22].contains('='), "{key}");
        assert!("AQgw".contains(&key[21..22]), "{key}");
    }

    #[test]
    fn a_service_cannot_open_it_by_accident() {
        let mut response = Response::new(());
        assert!(to_connect_response(&mut response, false).is_err());
        *response.status_mut() = StatusCode::FORBIDDEN;
        assert!(to_connect_response(&mut response, false).is_ok());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(ACCEPT, HeaderValue::from_static("x"));
        to_connect_response(&mut response, true).expect("accepted");
        assert_eq!((response.status(), response.headers().len()), (StatusCode::OK, 0));
    }
}
