//! Request boundaries do not depend on how the bytes are split, and buffering is bounded.

use proptest::prelude::*;

use super::super::request_framer::{FramingStep, MAX_HEAD_SIZE, RequestFramer};
use crate::fuzz::{cases_or, hostile_bytes};

/// Fragments of requests, valid and invalid.
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

/// The result of framing a client's bytes.
#[derive(Debug, Default)]
pub(super) struct FramedRequests {
    /// The forwarded bytes, and the number of client bytes they correspond to.
    pub forwarded: Vec<u8>,
    pub consumed: usize,
    /// Offsets of request starts in the forwarded bytes.
    pub request_starts: Vec<usize>,
    /// Whether the next bytes were rejected.
    pub rejected: bool,
}

impl FramedRequests {
    /// The forwarded requests. The last one may be incomplete.
    pub(super) fn requests(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.request_starts.iter().skip(1).copied().chain([self.forwarded.len()]);
        self.request_starts.iter().zip(ends).map(|(start, end)| &self.forwarded[*start..end])
    }
}

/// Frames bytes that arrive in pieces of these lengths. All upgrades are accepted, or all are
/// declined.
pub(super) fn frame_in_pieces(
    bytes: &[u8],
    lengths: &[usize],
    accepts_upgrade: bool,
) -> FramedRequests {
    let (mut framer, mut framed) = (RequestFramer::default(), FramedRequests::default());
    let (mut buffered, mut rest) = (Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        let (piece, more) = rest.split_at((*length).min(rest.len()));
        (buffered, rest) = ([&buffered, piece].concat(), more);
        loop {
            let at_head = framer.is_in_head();
            match framer.step(&buffered) {
                FramingStep::Forward(count) => {
                    assert!(count > 0 && count <= buffered.len());
                    framed.request_starts.extend(at_head.then_some(framed.forwarded.len()));
                    framed.forwarded.extend(buffered.drain(..count));
                    framed.consumed += count;
                }
                FramingStep::Rewrite(count, head) => {
                    assert!(at_head && count <= buffered.len() && head.len() > count);
                    framed.request_starts.push(framed.forwarded.len());
                    framed.forwarded.extend(head);
                    buffered.drain(..count);
                    framed.consumed += count;
                }
                FramingStep::NeedMore => break,
                FramingStep::AwaitUpgrade => framer.resolve_upgrade(accepts_upgrade),
                FramingStep::Reject => return FramedRequests { rejected: true, ..framed },
            }
        }
        assert!(buffered.len() < MAX_HEAD_SIZE, "{} bytes wait", buffered.len());
        if rest.is_empty() {
            break;
        }
    }
    framed
}

/// A client's bytes: requests, sometimes with a very long line.
pub(super) fn hostile_requests() -> impl Strategy<Value = Vec<u8>> {
    let long = prop_oneof![Just(0), Just(0), Just(0), 8_100..8_300_usize, 65_400..65_700_usize];
    (hostile_bytes(&PIECES, 12), long, any::<prop::sample::Index>()).prop_map(
        |(bytes, long, index)| {
            let (before, after) = bytes.split_at(index.index(bytes.len() + 1));
            [before, &b"a".repeat(long), after].concat()
        },
    )
}

proptest! {
    #![proptest_config(cases_or(512))]

    #[test]
    fn requests_end_where_they_end_however_they_come_in(
        bytes in hostile_requests(),
        lengths in prop::collection::vec(1_usize..80, 1..6),
        accepts_upgrade: bool,
    ) {
        let whole = frame_in_pieces(&bytes, &[usize::MAX], accepts_upgrade);
        let cut = frame_in_pieces(&bytes, &lengths, accepts_upgrade);
        prop_assert!(whole.consumed <= bytes.len() && whole.consumed <= whole.forwarded.len());
        prop_assert_eq!(whole.consumed, cut.consumed);
        prop_assert_eq!(&cut.forwarded, &whole.forwarded);
        prop_assert_eq!(&cut.request_starts, &whole.request_starts);
        // An error may only be visible once the end of its line has arrived.
        prop_assert!(whole.rejected || !cut.rejected);
    }
}
