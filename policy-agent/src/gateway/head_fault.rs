//! Requests of HTTP/1 of which no head can go on to the HTTP library. It would answer such a one without
//! a word, and nobody would learn of it; so what it gets in its place is a request that no client can
//! make, which is answered with what was wrong.

use hyper::{Method, Request};

use super::refusal::GatewayRefusal;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestHeadFault {
    /// It is none, is too long, or has two readings.
    Malformed,
    /// It took too long.
    TimedOut,
    /// The client ended in the middle of it.
    Truncated,
}

impl RequestHeadFault {
    /// A request that stands for it. [`framing`](super::framing) lets none with this method pass.
    pub const fn marker_request(self) -> &'static [u8] {
        match self {
            Self::Malformed => b"CONNECT fault:1 HTTP/1.1\r\n\r\n",
            Self::TimedOut => b"CONNECT fault:2 HTTP/1.1\r\n\r\n",
            Self::Truncated => b"CONNECT fault:3 HTTP/1.1\r\n\r\n",
        }
    }

    /// What a request of HTTP/1 stands for, if it is one of these.
    pub fn from_marker_request<B>(request: &Request<B>) -> Option<Self> {
        if request.method() != Method::CONNECT {
            return None;
        }
        Some(match request.uri().authority().and_then(|it| it.port_u16()) {
            Some(2) => Self::TimedOut,
            Some(3) => Self::Truncated,
            _ => Self::Malformed,
        })
    }

    /// What the client is told.
    pub fn refusal(self) -> GatewayRefusal {
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
