//! Rewrites a client's request for the service.

use http_body_util::{Either, Empty};
use hyper::{
    Request, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderMap, HeaderValue},
};

use super::{
    access_log::AccessLogEntry, backend::BackendRequestBody, flow_control::PacedBody,
    forwarded_headers, refusal::GatewayRefusal, request_body::ClientRequestBody,
    request_framer::MAX_HEAD_SIZE, request_length::parse_content_length,
    trusted_proxies::RequestClient,
};
use crate::net::hop_by_hop;

/// Information about a request that is added for the service.
pub(super) struct RequestRewrite<'a> {
    /// The original client.
    pub client: &'a RequestClient,
    /// The requested host.
    pub requested_host: &'a str,
    /// The host that the service receives.
    pub backend_host: &'a str,
}

impl RequestRewrite<'_> {
    /// Rewrites a request. Returns whether it offers a protocol upgrade.
    pub(super) fn apply(&self, request: &mut Request<Incoming>) -> bool {
        let is_http1 = request.version() < Version::HTTP_2;
        let expects_continue = expects_continue(request);
        if !is_http1 || !request.body().is_end_stream() {
            // HTTP/2 has no such upgrade, and requests with a body never offer one in practice.
            request.headers_mut().remove(header::UPGRADE);
        }
        let offers_upgrade = hop_by_hop::rewrite_for_upstream(request);
        let headers = request.headers_mut();
        if !expects_continue {
            headers.remove(header::EXPECT);
        }
        join_cookies(headers);
        let RequestClient { address, scheme, host } = self.client;
        forwarded_headers::set_forwarded_headers(
            headers,
            *address,
            *scheme,
            host.as_deref().unwrap_or(self.requested_host),
        );
        if let Ok(host) = HeaderValue::from_str(self.backend_host) {
            headers.insert(header::HOST, host);
        }
        offers_upgrade
    }
}

/// Whether the client waits with the body until the service asks for it. Over HTTP/2 the HTTP
/// library could not pass that on.
fn expects_continue(request: &Request<Incoming>) -> bool {
    let expectation = request.headers().get(header::EXPECT);
    request.version() == Version::HTTP_11
        && !request.body().is_end_stream()
        && expectation.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The body to forward, or an empty one.
pub(super) fn backend_body(body: Incoming, log_entry: &mut AccessLogEntry) -> BackendRequestBody {
    if body.is_end_stream() {
        Either::Right(Empty::new())
    } else {
        Either::Left(PacedBody::new(ClientRequestBody::new(body, log_entry.received())))
    }
}

/// Checks a request for what HTTP/2 allows and HTTP/1 cannot express.
///
/// # Errors
/// The head is too long, or its `Content-Length` is invalid.
pub(super) fn check_head<B>(request: &Request<B>) -> Result<(), GatewayRefusal> {
    if head_length(request) > MAX_HEAD_SIZE {
        return Err(GatewayRefusal::head_too_large());
    }
    // HTTP/2 framing does not depend on the length, but the service would use it in HTTP/1.
    let mut lengths = request.headers().get_all(header::CONTENT_LENGTH).iter();
    let is_valid =
        lengths.next().is_none_or(|length| parse_content_length(length.as_bytes()).is_some());
    if is_valid && lengths.next().is_none() {
        return Ok(());
    }
    Err(GatewayRefusal::bad_request("Content-Length is not one number"))
}

/// The approximate size of the head in HTTP/1, in bytes.
fn head_length<B>(request: &Request<B>) -> usize {
    let fields = request.headers().iter();
    let fields: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.method().as_str().len() + target + fields
}

/// Joins cookies, which HTTP/2 clients may send in separate fields (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(header::COOKIE);
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}
