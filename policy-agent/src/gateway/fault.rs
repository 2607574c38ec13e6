//! Requests of HTTP/1 of which no head can go on to the HTTP library. It would answer such a one without
//! a word, and nobody would learn of it; so what it gets in its place is a request that no client can
//! make, which is answered with what was wrong.

use hyper::{Method, Request};

use super::refusal::Refusal;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is none, is too long, or has two readings.
    Malformed,
    /// It took too long.
    Slow,
    /// The client ended in the middle of it.
    CutOff,
}

impl Fault {
    /// A request that stands for it. [`framing`](super::framing) lets none with this method pass.
    pub const fn request(self) -> &'static [u8] {
        match self {
            Self::Malformed => b"CONNECT fault:1 HTTP/1.1\r\n\r\n",
            Self::Slow => b"CONNECT fault:2 HTTP/1.1\r\n\r\n",
            Self::CutOff => b"CONNECT fault:3 HTTP/1.1\r\n\r\n",
        }
    }

    /// What a request of HTTP/1 stands for, if it is one of these.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        if request.method() != Method::CONNECT {
            return None;
        }
        Some(match request.uri().authority().and_then(|it| it.port_u16()) {
            Some(2) => Self::Slow,
            Some(3) => Self::CutOff,
            _ => Self::Malformed,
        })
    }

    /// What the client is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Malformed => Refusal::bad_request(
                "the head of the request is malformed, could be read in two ways, or is longer than \
                 64 KiB or 100 fields",
            ),
            Self::Slow => Refusal::too_slow(),
            Self::CutOff => Refusal::bad_request("the request ended within its head"),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Uri;

    use super::*;

    #[test]
    fn requests_stand_for_faults() {
        for fault in [Fault::Malformed, Fault::Slow, Fault::CutOff] {
            let text = std::str::from_utf8(fault.request()).expect("ASCII");
            let target: Uri = text.split(' ').nth(1).expect("a target").parse().expect("a target");
            let request = Request::connect(target).body(()).expect("a request");
            assert_eq!(Fault::of(&request), Some(fault));
        }
        let get = Request::get("http://fault:2/").body(()).expect("a request");
        assert_eq!(Fault::of(&get), None);
    }
}
