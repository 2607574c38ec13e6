//! Makes a client's request the one that the service gets.

use http_body_util::{Either, Empty};
use hyper::{
    Request, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderMap, HeaderValue},
};

use super::{
    backend::Outgoing,
    flow::Paced,
    forwarded,
    framing::{LONGEST_HEAD, digits},
    refusal::Refusal,
    trusted_proxies::Client,
};
use crate::net::hop;

/// What the service is told of a request besides what stands in it.
pub struct Told<'a> {
    /// Who asks.
    pub client: &'a Client,
    /// The host that was asked for.
    pub asked: &'a str,
    /// The host that the service is to see.
    pub host: &'a str,
}

impl Told<'_> {
    /// Rewrites a request. Whether it offers to go on in another protocol.
    pub fn prepare(&self, request: &mut Request<Incoming>) -> bool {
        let is_http1 = request.version() < Version::HTTP_2;
        if !is_http1 || !request.body().is_end_stream() {
            // Such an offer has no place in HTTP/2, and behind a body nobody makes one.
            request.headers_mut().remove(header::UPGRADE);
        }
        let offers = hop::send_on(request);
        let headers = request.headers_mut();
        // The HTTP library has told the client to go on, or will when the body is asked for.
        headers.remove(header::EXPECT);
        join_cookies(headers);
        let Client { address, scheme, host } = self.client;
        forwarded::set(headers, *address, *scheme, host.as_deref().unwrap_or(self.asked));
        if let Ok(host) = HeaderValue::from_str(self.host) {
            headers.insert(header::HOST, host);
        }
        offers
    }
}

/// The body that goes on, or none.
pub fn outgoing(body: Incoming) -> Outgoing {
    if body.is_end_stream() { Either::Right(Empty::new()) } else { Either::Left(Paced::new(body)) }
}

/// What of HTTP/2 could not be said in HTTP/1.
///
/// # Errors
/// The head is too long, or its length of the body is none.
pub fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    if length(request) > LONGEST_HEAD {
        return Err(Refusal::too_large());
    }
    // In HTTP/2 nothing rests on the length, but the service would read it in HTTP/1.
    let mut lengths = request.headers().get_all(header::CONTENT_LENGTH).iter();
    let sound = lengths.next().is_none_or(|length| digits(length.as_bytes()).is_some());
    if sound && lengths.next().is_none() {
        return Ok(());
    }
    Err(Refusal::bad_request("Content-Length is not one number"))
}

/// Bytes of a head, about as HTTP/1 writes it.
fn length<B>(request: &Request<B>) -> usize {
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
