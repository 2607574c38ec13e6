//! Responses to requests that do not reach a service: JSON for programs, a page for people.

use std::net::IpAddr;

use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{self, HeaderMap, HeaderValue},
};
use serde::Serialize;

use super::{cors, target::SandboxTarget};
use crate::{net::hop_by_hop::header_str, policy::SandboxId};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayRefusal {
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<SandboxId>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(serialize_with = "number")]
    code: StatusCode,
}

fn number<S: serde::Serializer>(code: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(code.as_u16())
}

impl GatewayRefusal {
    /// The request cannot be forwarded.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        let code = StatusCode::BAD_REQUEST;
        Self { sandbox_id: None, message: message.into(), port: None, code }
    }

    /// The head of the request exceeds the size limit.
    pub(super) fn head_too_large() -> Self {
        let code = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self { code, ..Self::bad_request("the head of the request is longer than 64 KiB") }
    }

    /// The head of the request arrived too slowly.
    pub(super) fn head_timeout() -> Self {
        let code = StatusCode::REQUEST_TIMEOUT;
        Self { code, ..Self::bad_request("the head of the request took longer than 30 s") }
    }

    /// The path is reserved for the operator. The response does not reveal whether the sandbox
    /// exists.
    pub(super) fn path_not_public(target: &SandboxTarget) -> Self {
        Self::for_target(target, StatusCode::NOT_FOUND, "this path is not served by public URLs")
    }

    /// The method is CONNECT, but neither for a WebSocket nor for an allowed tunnel.
    pub(super) fn connect_not_supported() -> Self {
        let message = "CONNECT is served only for WebSockets over HTTP/2 (RFC 8441), and for \
                       tunnels if the operator sets gateway.tcp_tunnels";
        Self { code: StatusCode::NOT_IMPLEMENTED, ..Self::bad_request(message) }
    }

    /// The sandbox does not exist.
    pub(super) fn unknown_sandbox(target: &SandboxTarget) -> Self {
        let message = "there is no such sandbox: it was never there, or it has ended";
        Self { port: None, ..Self::for_target(target, StatusCode::BAD_GATEWAY, message) }
    }

    /// The sandbox is private, and the request does not present its token.
    pub(super) fn token_required(target: &SandboxTarget) -> Self {
        let message = "this sandbox is private: send its traffic access token in the header \
                       e2b-traffic-access-token, or as a query parameter or cookie of that name";
        Self::for_target(target, StatusCode::FORBIDDEN, message)
    }

    /// The client asks for a tunnel without the token, which it may send as a password.
    pub(super) fn tunnel_token_required(target: &SandboxTarget) -> Self {
        let message = "tunnels need the sandbox's traffic access token: send it in the header \
                       e2b-traffic-access-token, or as the password of the proxy";
        Self::for_target(target, StatusCode::PROXY_AUTHENTICATION_REQUIRED, message)
    }

    /// The client's network is not in the sandbox's list.
    pub(super) fn client_not_admitted(target: &SandboxTarget, client: IpAddr) -> Self {
        let message = format!("this sandbox admits no clients at {client} (allowPublicFrom)");
        Self::for_target(target, StatusCode::FORBIDDEN, &message)
    }

    /// The sandbox has reached its maximum number of connections.
    pub(super) fn too_many_connections(target: &SandboxTarget) -> Self {
        let message = "too many connections to this sandbox at a time: try again";
        Self::for_target(target, StatusCode::TOO_MANY_REQUESTS, message)
    }

    /// The service does not respond, with the reason.
    pub(super) fn service_unavailable(target: &SandboxTarget, message: &str) -> Self {
        Self::for_target(target, StatusCode::BAD_GATEWAY, message)
    }

    fn for_target(target: &SandboxTarget, code: StatusCode, message: &str) -> Self {
        let sandbox_id = Some(target.sandbox.clone());
        Self { sandbox_id, message: message.to_owned(), port: Some(target.port), code }
    }

    /// The response, in the format that the client prefers.
    pub(super) fn to_response(&self, format: &RefusalFormat) -> Response<Full<Bytes>> {
        let (kind, text) = if format.is_html {
            ("text/html; charset=utf-8", self.html_page())
        } else {
            let text = serde_json::to_string(self).unwrap_or_default();
            ("application/json", text)
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = self.code;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
        if self.code == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            let challenge = HeaderValue::from_static("Basic realm=\"sandbox\"");
            response.headers_mut().insert(header::PROXY_AUTHENTICATE, challenge);
        }
        if let Some(origin) = &format.origin {
            cors::allow_origin(response.headers_mut(), origin);
        }
        response
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        self.code
    }

    /// The only values that come from the client are a sandbox ID and a port, which consist of
    /// letters and digits.
    fn html_page(&self) -> String {
        let code = self.code;
        let target_line = match (&self.sandbox_id, self.port) {
            (Some(id), Some(port)) => format!("<p>Sandbox <b>{id}</b>, port <b>{port}</b></p>"),
            (Some(id), None) => format!("<p>Sandbox <b>{id}</b></p>"),
            _ => String::new(),
        };
        let message = &self.message;
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>{code}</title>\
             <body style=\"font:16px sans-serif;max-width:40em;margin:4em auto\">\
             <h1>{code}</h1>{target_line}<p>{}</p>\n",
            message.replace('<', "&lt;")
        )
    }
}

/// The format of a refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusalFormat {
    is_html: bool,
    /// The origin of the script that sent the request.
    origin: Option<HeaderValue>,
}

impl RefusalFormat {
    /// Chooses the format by the headers of a request.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let origin = headers.get(header::ORIGIN).cloned();
        Self { is_html: prefers_html(headers), origin }
    }
}

/// Whether a person will read the response: true for a browser that loads a page, false for scripts
/// and programs.
fn prefers_html(headers: &HeaderMap) -> bool {
    let text = |name: &str| header_str(headers, name);
    let accept = text("accept");
    let (html, json) = (accept.contains("text/html"), accept.contains("json"));
    let from_script =
        matches!(text("sec-fetch-mode"), "cors" | "no-cors" | "same-origin" | "websocket")
            || headers.contains_key("x-requested-with");
    if from_script || (json && !html) {
        return false;
    }
    html || text("user-agent").starts_with("Mozilla/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> SandboxTarget {
        let sandbox = "abc".parse().expect("an ID");
        SandboxTarget { sandbox, port: 3000, host: "3000-abc.example.com".to_owned() }
    }

    #[test]
    fn programs_get_the_fields_that_clients_read() {
        let json = |refusal: GatewayRefusal| serde_json::to_value(refusal).expect("JSON");
        let unknown = json(GatewayRefusal::unknown_sandbox(&target()));
        assert_eq!((&unknown["sandboxId"], &unknown["code"]), (&"abc".into(), &502.into()));
        assert!(unknown.get("port").is_none() && unknown["message"].is_string());
        let closed = json(GatewayRefusal::service_unavailable(&target(), "closed"));
        assert_eq!((&closed["port"], &closed["code"]), (&3000.into(), &502.into()));
        let bad = json(GatewayRefusal::bad_request("bad"));
        assert_eq!(bad, serde_json::json!({"message": "bad", "code": 400}));
    }

    #[test]
    fn scripts_of_other_origins_may_read_it() {
        let mut headers = HeaderMap::new();
        let response = GatewayRefusal::token_required(&target())
            .to_response(&RefusalFormat::from_headers(&headers));
        assert!(!response.headers().contains_key("access-control-allow-origin"));
        headers.insert("origin", HeaderValue::from_static("https://app.example"));
        let response = GatewayRefusal::token_required(&target())
            .to_response(&RefusalFormat::from_headers(&headers));
        assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
        assert!(!response.headers().contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn browsers_get_a_page() {
        let is_html = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (name.parse().expect("a name"), HeaderValue::from_static(value))
            });
            prefers_html(&headers.collect::<HeaderMap>())
        };
        let page = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        assert!(is_html(&[page]));
        assert!(is_html(&[("user-agent", "Mozilla/5.0 (X11)"), ("accept", "*/*")]));
        assert!(!is_html(&[]));
        assert!(!is_html(&[("accept", "*/*"), ("user-agent", "curl/8.0")]));
        assert!(!is_html(&[("accept", "application/json"), ("user-agent", "Mozilla/5.0")]));
        for mode in ["cors", "no-cors", "same-origin", "websocket"] {
            assert!(!is_html(&[page, ("sec-fetch-mode", mode)]));
        }
        assert!(is_html(&[page, ("sec-fetch-mode", "navigate")]));
        assert!(!is_html(&[page, ("x-requested-with", "XMLHttpRequest")]));
    }
}
