//! Where requests end does not depend on how their bytes come in, and nothing is kept for ever.

use proptest::prelude::*;

use super::super::framing::{Follower, LONGEST_HEAD, Step};
use crate::fuzz::{few, hostile};

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
pub struct Followed {
    /// What went on, and how many bytes of the client's it was.
    pub passed: Vec<u8>,
    pub taken: usize,
    /// Where in that requests begin.
    pub begins: Vec<usize>,
    /// What came next had two readings.
    pub refused: bool,
}

impl Followed {
    /// The requests that went on, the last perhaps in part.
    pub fn requests(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.begins.iter().skip(1).copied().chain([self.passed.len()]);
        self.begins.iter().zip(ends).map(|(begin, end)| &self.passed[*begin..end])
    }
}

/// Has bytes followed that come in in pieces of these lengths; offers are taken up, or all declined.
pub fn follow(bytes: &[u8], lengths: &[usize], takes_up: bool) -> Followed {
    let (mut follower, mut followed) = (Follower::default(), Followed::default());
    let (mut waiting, mut rest) = (Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        let (piece, more) = rest.split_at((*length).min(rest.len()));
        (waiting, rest) = ([&waiting, piece].concat(), more);
        loop {
            let begins = follower.is_in_head();
            match follower.step(&waiting) {
                Step::Take(count) => {
                    assert!(count > 0 && count <= waiting.len());
                    followed.begins.extend(begins.then_some(followed.passed.len()));
                    followed.passed.extend(waiting.drain(..count));
                    followed.taken += count;
                }
                Step::Rewrite(count, head) => {
                    assert!(begins && count <= waiting.len() && head.len() > count);
                    followed.begins.push(followed.passed.len());
                    followed.passed.extend(head);
                    waiting.drain(..count);
                    followed.taken += count;
                }
                Step::More => break,
                Step::Wait => follower.answer_offer(takes_up),
                Step::Refuse => return Followed { refused: true, ..followed },
            }
        }
        assert!(waiting.len() < LONGEST_HEAD, "{} bytes wait", waiting.len());
        if rest.is_empty() {
            break;
        }
    }
    followed
}

/// What a client sends: requests, and now and then a line that goes on and on.
pub fn sent() -> impl Strategy<Value = Vec<u8>> {
    let long = prop_oneof![Just(0), Just(0), Just(0), 8_100..8_300_usize, 65_400..65_700_usize];
    (hostile(&PIECES, 12), long, any::<prop::sample::Index>()).prop_map(|(bytes, long, place)| {
        let (before, behind) = bytes.split_at(place.index(bytes.len() + 1));
        [before, &b"a".repeat(long), behind].concat()
    })
}

proptest! {
    #![proptest_config(few(512))]

    #[test]
    fn requests_end_where_they_end_however_they_come_in(
        bytes in sent(),
        lengths in prop::collection::vec(1_usize..80, 1..6),
        takes_up: bool,
    ) {
        let whole = follow(&bytes, &[usize::MAX], takes_up);
        let cut = follow(&bytes, &lengths, takes_up);
        prop_assert!(whole.taken <= bytes.len() && whole.taken <= whole.passed.len());
        prop_assert_eq!(whole.taken, cut.taken);
        prop_assert_eq!(&cut.passed, &whole.passed);
        prop_assert_eq!(&cut.begins, &whole.begins);
        // The end of a line may be needed to see what is wrong with it.
        prop_assert!(whole.refused || !cut.refused);
    }
}
