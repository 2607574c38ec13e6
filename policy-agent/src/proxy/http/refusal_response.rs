//! The response to a refused request.

use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
};
use policy_common::reason::Reason;

/// The body of a response: the server's, or one line from the proxy.
pub(super) type ProxyResponseBody = Either<Incoming, Full<Bytes>>;

/// A one-line refusal, after which the connection closes.
pub(super) fn refusal_response(reason: Reason, name: Option<&str>) -> Response<ProxyResponseBody> {
    let mut line = format!("{}: {}", reason.label(), reason.help());
    if let Some(name) = name {
        line.push_str(&format!(" ({name})"));
    }
    line.push('\n');
    let mut response = Response::new(Either::Right(Full::from(line)));
    *response.status_mut() = refusal_status(reason);
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

const fn refusal_status(reason: Reason) -> StatusCode {
    match reason {
        Reason::NameConflict | Reason::InvalidName | Reason::NotJudgeable => {
            StatusCode::BAD_REQUEST
        }
        Reason::NameUnresolved
        | Reason::Unreachable
        | Reason::EgressProxyFailed
        | Reason::BadResponse
        | Reason::ServerBrokeOff => StatusCode::BAD_GATEWAY,
        _ => StatusCode::FORBIDDEN,
    }
}
