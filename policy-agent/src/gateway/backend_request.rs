//! Makes a client's request the one that the service gets.

use http_body_util::{Either, Empty};
use hyper::{
    Request, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderMap, HeaderValue},
};

use super::{
    backend::BackendRequestBody,
    flow_control::PacedBody,
    forwarded_headers,
    refusal::GatewayRefusal,
    request_framer::{MAX_HEAD_SIZE, parse_content_length},
    trusted_proxies::RequestClient,
};
use crate::net::hop_by_hop;

/// What the service is told of a request besides what stands in it.
pub struct RequestRewrite<'a> {
    /// Who asks.
    pub client: &'a RequestClient,
    /// The host that was asked for.
    pub requested_host: &'a str,
    /// The host that the service is to see.
    pub backend_host: &'a str,
}

impl RequestRewrite<'_> {
    /// Rewrites a request. Whether it offers to go on in another protocol.
    pub fn apply(&self, request: &mut Request<Incoming>) -> bool {
        let is_http1 = request.version() < Version::HTTP_2;
        if !is_http1 || !request.body().is_end_stream() {
            // Such an offer has no place in HTTP/2, and behind a body nobody makes one.
            request.headers_mut().remove(header::UPGRADE);
        }
        let offers_upgrade = hop_by_hop::rewrite_for_upstream(request);
        let headers = request.headers_mut();
        // The HTTP library has told the client to go on, or will when the body is asked for.
        headers.remove(header::EXPECT);
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

/// The body that goes on, or none.
pub fn backend_body(body: Incoming) -> BackendRequestBody {
    if body.is_end_stream() {
        Either::Right(Empty::new())
    } else {
        Either::Left(PacedBody::new(body))
    }
}

/// What of HTTP/2 could not be said in HTTP/1.
///
/// # Errors
/// The head is too long, or its length of the body is none.
pub fn check_head<B>(request: &Request<B>) -> Result<(), GatewayRefusal> {
    if head_length(request) > MAX_HEAD_SIZE {
        return Err(GatewayRefusal::head_too_large());
    }
    // In HTTP/2 nothing rests on the length, but the service would read it in HTTP/1.
    let mut lengths = request.headers().get_all(header::CONTENT_LENGTH).iter();
    let sound =
        lengths.next().is_none_or(|length| parse_content_length(length.as_bytes()).is_some());
    if sound && lengths.next().is_none() {
        return Ok(());
    }
    Err(GatewayRefusal::bad_request("Content-Length is not one number"))
}

/// Bytes of a head, about as HTTP/1 writes it.
fn head_length<B>(request: &Request<B>) -> usize {
    let fields = request.headers().iter();
    let fields: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.method().as_str().len() + target + fields
}

/// Clients of HTTP/2 send cookies one by one (RFC 9113, 8.2.3).
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
