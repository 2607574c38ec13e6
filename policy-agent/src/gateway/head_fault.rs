//! Faults of HTTP/1 request heads that cannot be passed to the HTTP library. The library would
//! close such a connection without a response and without a metric. Instead, it receives a marker
//! request that no client can send, and the gateway answers that with the fault.

use hyper::{Method, Request};

use super::refusal::GatewayRefusal;

/// The host of marker requests. It is no host of the gateway.
pub(super) const MARKER_HOST: &str = "fault";

/// What is wrong with a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestHeadFault {
    /// It is not a request head, too long, or ambiguous.
    Malformed,
    /// It took too long to arrive.
    TimedOut,
    /// The client closed the connection before its end.
    Truncated,
}

impl RequestHeadFault {
    /// The marker request of this fault. [`request_framer`](super::request_framer) rejects requests
    /// with this method to [`MARKER_HOST`], so no client can send one.
    pub(super) const fn marker_request(self) -> &'static [u8] {
        match self {
            Self::Malformed => b"CONNECT fault:1 HTTP/1.1\r\n\r\n",
            Self::TimedOut => b"CONNECT fault:2 HTTP/1.1\r\n\r\n",
            Self::Truncated => b"CONNECT fault:3 HTTP/1.1\r\n\r\n",
        }
    }

    /// The fault that an HTTP/1 request marks, if it is a marker request.
    pub(super) fn from_marker_request<B>(request: &Request<B>) -> Option<Self> {
        let authority = request.uri().authority().filter(|it| it.host() == MARKER_HOST)?;
        if request.method() != Method::CONNECT {
            return None;
        }
        Some(match authority.port_u16() {
            Some(2) => Self::TimedOut,
            Some(3) => Self::Truncated,
            _ => Self::Malformed,
        })
    }

    /// The response to the client.
    pub(super) fn refusal(self) -> GatewayRefusal {
        match self {
            Self::Malformed => GatewayRefusal::bad_request(
                "the head of the request is malformed, could be read in two ways, or is longer than \
                 64 KiB or 100 fields",
            ),
            Self::TimedOut => GatewayRefusal::head_timeout(),
            Self::Truncated => GatewayRefusal::bad_request("the request ended within its head"),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Uri;

    use super::*;

    #[test]
    fn marker_requests_map_back_to_faults() {
        for fault in
            [RequestHeadFault::Malformed, RequestHeadFault::TimedOut, RequestHeadFault::Truncated]
        {
            let text = std::str::from_utf8(fault.marker_request()).expect("ASCII");
            let target: Uri = text.split(' ').nth(1).expect("a target").parse().expect("a target");
            let request = Request::connect(target).body(()).expect("a request");
            assert_eq!(RequestHeadFault::from_marker_request(&request), Some(fault));
        }
        let get = Request::get("http://fault:2/").body(()).expect("a request");
        assert_eq!(RequestHeadFault::from_marker_request(&get), None);
    }
}
