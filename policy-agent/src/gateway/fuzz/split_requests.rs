//! Where requests end does not depend on how their bytes come in, and nothing is kept for ever.

use proptest::prelude::*;

use super::super::request_framer::{FramingStep, MAX_HEAD_SIZE, RequestFramer};
use crate::fuzz::{cases_or, hostile_bytes};

/// Pieces that requests are made of, good ones and bad ones.
const PIECES: [&str; 42] = [
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.1\r\n",
    "GET http://a.example/ HTTP/1.1\r\n",
    "HEAD * HTTP/1.0\r\n",
    "CONNECT a.example:80 HTTP/1.1\r\n",
    "GET /?q=up{job=\"x\"}<>é HTTP/1.1\r\n",
    "GET /é HTTP/1.1\r\nHost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "Host: a.example\r\n",
    "host:a.example:80\r\n",
    "Host: a.example\n",
    "Host : a.example\r\n",
    " Host: a.example\r\n",
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\0",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length:50\r\n",
    "Content-Length: +5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:CHUNKED\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nT: v\r\n\r\n",
    "5;x=y\r\nhello\r\n",
    "0005\r\nhello\r\n",
    "5 \r\nhello\r\n",
    "ffffffffffffffff\r\n",
    "hello",
    "Connection: close\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
];

/// What a follower makes of a client's bytes.
#[derive(Debug, Default)]
pub struct FramedRequests {
    /// What went on, and how many bytes of the client's it was.
    pub forwarded: Vec<u8>,
    pub consumed: usize,
    /// Where in that requests begin.
    pub request_starts: Vec<usize>,
    /// What came next had two readings.
    pub rejected: bool,
}

impl FramedRequests {
    /// The requests that went on, the last perhaps in part.
    pub fn requests(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.request_starts.iter().skip(1).copied().chain([self.forwarded.len()]);
        self.request_starts.iter().zip(ends).map(|(begin, end)| &self.forwarded[*begin..end])
    }
}

/// Has bytes followed that come in in pieces of these lengths; offers are taken up, or all declined.
pub fn frame_in_pieces(bytes: &[u8], lengths: &[usize], accepts_upgrade: bool) -> FramedRequests {
    let (mut framer, mut followed) = (RequestFramer::default(), FramedRequests::default());
    let (mut waiting, mut rest) = (Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        let (piece, more) = rest.split_at((*length).min(rest.len()));
        (waiting, rest) = ([&waiting, piece].concat(), more);
        loop {
            let at_head = framer.is_in_head();
            match framer.step(&waiting) {
                FramingStep::Forward(count) => {
                    assert!(count > 0 && count <= waiting.len());
                    followed.request_starts.extend(at_head.then_some(followed.forwarded.len()));
                    followed.forwarded.extend(waiting.drain(..count));
                    followed.consumed += count;
                }
                FramingStep::Rewrite(count, head) => {
                    assert!(at_head && count <= waiting.len() && head.len() > count);
                    followed.request_starts.push(followed.forwarded.len());
                    followed.forwarded.extend(head);
                    waiting.drain(..count);
                    followed.consumed += count;
                }
                FramingStep::NeedMore => break,
                FramingStep::AwaitUpgrade => framer.resolve_upgrade(accepts_upgrade),
                FramingStep::Reject => return FramedRequests { rejected: true, ..followed },
            }
        }
        assert!(waiting.len() < MAX_HEAD_SIZE, "{} bytes wait", waiting.len());
        if rest.is_empty() {
            break;
        }
    }
    followed
}

/// What a client sends: requests, and now and then a line that goes on and on.
pub fn hostile_requests() -> impl Strategy<Value = Vec<u8>> {
    let long = prop_oneof![Just(0), Just(0), Just(0), 8_100..8_300_usize, 65_400..65_700_usize];
    (hostile_bytes(&PIECES, 12), long, any::<prop::sample::Index>()).prop_map(
        |(bytes, long, place)| {
            let (before, behind) = bytes.split_at(place.index(bytes.len() + 1));
            [before, &b"a".repeat(long), behind].concat()
        },
    )
}

proptest! {
    #![proptest_config(cases_or(512))]

    #[test]
    fn requests_end_where_they_end_however_they_come_in(
        bytes in hostile_requests(),
        lengths in prop::collection::vec(1_usize..80, 1..6),
        takes_up: bool,
    ) {
        let whole = frame_in_pieces(&bytes, &[usize::MAX], takes_up);
        let cut = frame_in_pieces(&bytes, &lengths, takes_up);
        prop_assert!(whole.consumed <= bytes.len() && whole.consumed <= whole.forwarded.len());
        prop_assert_eq!(whole.consumed, cut.consumed);
        prop_assert_eq!(&cut.forwarded, &whole.forwarded);
        prop_assert_eq!(&cut.request_starts, &whole.request_starts);
        // The end of a line may be needed to see what is wrong with it.
        prop_assert!(whole.rejected || !cut.rejected);
    }
}
