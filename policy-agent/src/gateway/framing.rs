//! Where one HTTP/1 request ends and the next begins, held to one reading.
//!
//! The HTTP library is lenient where servers differ: it takes a bare LF for the end of a line, and
//! lets `Transfer-Encoding` win over `Content-Length`. What it passes on is unambiguous, but a client
//! that sends such things is broken or hostile, and is told so. This follows the boundaries of the
//! requests in what a client sends; heads and chunk sizes are parsed by httparse. Only whole, judged
//! heads go on to the library, and bytes unchanged, but for targets that it would refuse though they
//! are clear ([`request_line`](super::request_line)). Behind a head, what has two readings is replaced
//! by what has none ([`POISON`]), so that the library breaks off.

use httparse::{Request, Status, parse_chunk_size};
use hyper::Uri;

use super::request_line;

/// No chunk begins like this.
pub const POISON: &[u8] = b"\0\r\n\r\n";

/// Bytes that the head of a request may take.
pub const LONGEST_HEAD: usize = 64 * 1024;
/// Fields that it may have.
const MOST_FIELDS: usize = 100;
/// Bytes of a body that says its length: what the library can count.
const LONGEST_BODY: u64 = u64::MAX / 2;
/// Bytes of the line before a chunk, and of a line of trailers.
const LONGEST_LINE: usize = 8 * 1024;

/// How far the requests of a connection are understood.
#[derive(Debug, Default)]
pub struct Follower {
    state: State,
    /// Bytes of trailers so far.
    trailers: usize,
    /// Bytes of a head that were looked at without finding its end.
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At the beginning of a head.
    #[default]
    Head,
    /// In a body with so many bytes left.
    Body(u64),
    /// At the beginning of the line before a chunk.
    ChunkSize,
    /// In a chunk with so many bytes left, its CRLF included.
    Chunk(u64),
    /// At the beginning of a line behind the last chunk.
    Trailers,
    /// Behind a request for another protocol: what follows may be no HTTP.
    Offered,
    /// Another protocol.
    Opaque,
    /// Something had two readings.
    Broken,
}

/// What is known about some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes can go on.
    Take(usize),
    /// So many bytes are the head of a request, which goes on as these.
    Rewrite(usize, Vec<u8>),
    /// It takes more bytes to tell.
    More,
    /// Nothing goes on until the offer of another protocol is answered.
    Wait,
    /// They have two readings, or none.
    Refuse,
}

impl Follower {
    /// What of `bytes`, which are behind all that were taken before, can go on.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        let step = self.judge(bytes);
        if step == Step::Refuse {
            self.state = State::Broken;
        }
        step
    }

    /// Whether the bytes that wait belong to the head of a request.
    pub fn is_in_head(&self) -> bool {
        self.state == State::Head
    }

    /// The offer of another protocol was taken up, or not.
    pub fn answer_offer(&mut self, taken: bool) {
        if self.state == State::Offered {
            self.state = if taken { State::Opaque } else { State::Head };
        }
    }

    fn judge(&mut self, bytes: &[u8]) -> Step {
        if bytes.is_empty() {
            return Step::More;
        }
        match self.state {
            State::Head => self.head(bytes),
            State::Body(left) => self.through(bytes, left, State::Body, State::Head),
            State::Chunk(left) => self.chunk(bytes, left),
            State::ChunkSize => self.chunk_size(bytes),
            State::Trailers => self.trailers(bytes),
            State::Offered => Step::Wait,
            State::Opaque => Step::Take(bytes.len()),
            State::Broken => Step::Refuse,
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Step {
        // Without a new line there is nothing new to parse, however slowly a head comes in.
        let news = bytes.get(self.seen..).unwrap_or(bytes);
        self.seen = bytes.len();
        if !news.contains(&b'\n') && bytes.len() < LONGEST_HEAD {
            return Step::More;
        }
        let rewritten = request_line::encoded(bytes);
        let head = rewritten.as_deref().unwrap_or(bytes);
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = Request::new(&mut fields);
        match request.parse(head) {
            Ok(Status::Complete(end)) => {
                let length = end - (head.len() - bytes.len());
                let sound = length <= LONGEST_HEAD && ends_lines_with_crlf(&head[..end]);
                let Some(state) = sound.then(|| next(&request)).flatten() else {
                    return Step::Refuse;
                };
                let step = self.go(state, length);
                rewritten.map_or(step, |mut head| {
                    head.truncate(end);
                    Step::Rewrite(length, head)
                })
            }
            Ok(Status::Partial) if bytes.len() < LONGEST_HEAD => Step::More,
            _ => Step::Refuse,
        }
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Step {
        match parse_chunk_size(bytes) {
            Ok(Status::Complete((length, size))) => {
                let line = &bytes[..length];
                let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let plain = digits > 0 && matches!(line[digits], b';' | b'\r');
                let Some(chunk) = size.checked_add(2) else { return Step::Refuse };
                if !plain || length > LONGEST_LINE || !ends_lines_with_crlf(line) {
                    return Step::Refuse;
                }
                self.trailers = 0;
                self.go(if size == 0 { State::Trailers } else { State::Chunk(chunk) }, length)
            }
            Ok(Status::Partial) if bytes.len() < LONGEST_LINE => Step::More,
            _ => Step::Refuse,
        }
    }

    /// A chunk ends with CRLF and nothing else: its last two bytes are looked at.
    fn chunk(&mut self, bytes: &[u8], left: u64) -> Step {
        let data = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX);
        if data > 0 {
            let count = data.min(bytes.len());
            return self.go(State::Chunk(left - count as u64), count);
        }
        match bytes {
            [b'\r'] => Step::More,
            [b'\r', b'\n', ..] => self.go(State::ChunkSize, 2),
            _ => Step::Refuse,
        }
    }

    fn trailers(&mut self, bytes: &[u8]) -> Step {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() < LONGEST_LINE { Step::More } else { Step::Refuse };
        };
        let line = &bytes[..=end];
        self.trailers += line.len();
        if !line.ends_with(b"\r\n") || self.trailers > LONGEST_LINE {
            return Step::Refuse;
        }
        self.go(if line == b"\r\n" { State::Head } else { State::Trailers }, line.len())
    }

    fn through(&mut self, bytes: &[u8], left: u64, on: fn(u64) -> State, end: State) -> Step {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - count as u64;
        self.go(if left == 0 { end } else { on(left) }, count)
    }

    fn go(&mut self, state: State, count: usize) -> Step {
        (self.state, self.seen) = (state, 0);
        Step::Take(count)
    }
}

/// What follows the head of a request; `None`: its target is none, or its length has two readings.
fn next(request: &Request<'_, '_>) -> Option<State> {
    let named = |name: &str| {
        let fields = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value).collect::<Vec<_>>()
    };
    if request.method == Some("CONNECT") || request.path?.parse::<Uri>().is_err() {
        return None;
    }
    match (named("transfer-encoding").as_slice(), named("content-length").as_slice()) {
        // HTTP/1.0 has no chunks (RFC 9112, 6.1).
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => {
            Some(State::ChunkSize)
        }
        ([], [length]) => match digits(length).filter(|length| *length <= LONGEST_BODY)? {
            0 => Some(without_body(!named("upgrade").is_empty())),
            length => Some(State::Body(length)),
        },
        ([], []) => Some(without_body(!named("upgrade").is_empty())),
        _ => None,
    }
}

fn without_body(offers: bool) -> State {
    if offers { State::Offered } else { State::Head }
}

/// `Content-Length = 1*DIGIT`: no sign, no list.
pub fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn ends_lines_with_crlf(text: &[u8]) -> bool {
    let mut before = 0;
    text.iter().all(|byte| {
        let fine = match byte {
            b'\n' => before == b'\r',
            _ => before != b'\r',
        };
        before = *byte;
        fine
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests there are in what is sent, in pieces of this size; `None`: refused.
    fn requests(text: &[u8], piece: usize) -> Option<usize> {
        let mut follower = Follower::default();
        let (mut waiting, mut count) = (Vec::new(), 0);
        for piece in text.chunks(piece) {
            waiting.extend_from_slice(piece);
            loop {
                let begins = follower.is_in_head();
                match follower.step(&waiting) {
                    Step::Take(taken) => {
                        assert!(taken > 0 && taken <= waiting.len());
                        count += usize::from(begins);
                        waiting.drain(..taken);
                    }
                    Step::More => break,
                    Step::Wait | Step::Refuse | Step::Rewrite(..) => return None,
                }
            }
        }
        assert!(waiting.is_empty() && follower.is_in_head(), "cut off: {waiting:?}");
        Some(count)
    }

    #[track_caller]
    fn are(text: &str, expected: Option<usize>) {
        for piece in [1, 2, 3, 7, text.len()] {
            assert_eq!(requests(text.as_bytes(), piece), expected, "{text:?} by {piece}");
        }
    }

    #[test]
    fn requests_are_followed() {
        are("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(1));
        are("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(2));
        are("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET GET / HTTP/1.1\r\n\r\n", Some(2));
        are("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Some(1));
        are(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
             4;x=y\r\nabcd\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            Some(2),
        );
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let post = |fields: &str, body: &str| {
            are(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}"), None);
        };
        post("Content-Length: 1\r\nContent-Length: 2", "ab");
        post("Content-Length: 1\r\nContent-Length: 1", "a");
        for length in
            ["1, 1", "+1", "-1", "0x1", "1 1", "", "99999999999999999999", "9223372036854775808"]
        {
            post(&format!("Content-Length: {length}"), "a");
        }
        post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
        post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n");
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
        for coding in
            ["chunked, chunked", "gzip, chunked", "xchunked", "identity", "", "\x0bchunked"]
        {
            post(&format!("Transfer-Encoding: {coding}"), "0\r\n\r\n");
        }
        post("Transfer-Encoding : chunked", "0\r\n\r\n");
        post("A: b\r\n Transfer-Encoding: chunked", "0\r\n\r\n");
        for body in [
            "x\r\n",
            "\r\n",
            "1 \r\na\r\n",
            " 1\r\na\r\n",
            "+1\r\na\r\n",
            "0x1\r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1;\n\r\na\r\n",
            "fffffffffffffffff\r\n",
            "ffffffffffffffff\r\n",
            "0\r\nT: v\n\r\n",
            "0\r\n\n",
        ] {
            post("Transfer-Encoding: chunked", body);
        }
        are("GET / HTTP/1.1\nHost: a\n\n", None);
        are("GET / HTTP/1.1\r\nHost: a\n\r\n", None);
        are("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None);
        are("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", None);
        are("\0\r\n\r\n", None);
    }

    #[test]
    fn a_clear_target_goes_on_in_the_librarys_spelling() {
        let rest = b" HTTP/1.1\r\nX: \"<\r\n\r\n";
        let text = [&b"POST /?q=up{job=\"x\"}&l=\xe9"[..], rest, b"GET /"].concat();
        let length = text.len() - 5;
        let expected = [&b"POST /?q=up{job=%22x%22}&l=%E9"[..], rest].concat();
        for seen in 1..length {
            let mut follower = Follower::default();
            assert_eq!(follower.step(&text[..seen]), Step::More);
            assert_eq!(follower.step(&text), Step::Rewrite(length, expected.clone()));
            assert!(follower.is_in_head());
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for target in ["/\u{7f}", "http://", "a b", "http://[", &"\"".repeat(LONGEST_HEAD / 3)] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(Follower::default().step(text.as_bytes()), Step::Refuse, "{target}");
        }
    }

    #[test]
    fn a_head_has_a_limit() {
        let long = "a".repeat(LONGEST_HEAD);
        are(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", &long[..LONGEST_HEAD - 30]), Some(1));
        let text = format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n");
        assert_eq!(requests(text.as_bytes(), 4096), None);
        let many = "A: b\r\n".repeat(MOST_FIELDS + 1);
        are(&format!("GET / HTTP/1.1\r\n{many}\r\n"), None);
    }

    #[test]
    fn behind_an_offer_nothing_goes_on_until_it_is_answered() {
        let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        for (taken, step) in [(true, Step::Take(3)), (false, Step::Refuse)] {
            let mut follower = Follower::default();
            assert_eq!(follower.step(head), Step::Take(head.len()));
            assert_eq!(follower.step(b"\0\r\n"), Step::Wait);
            follower.answer_offer(taken);
            assert_eq!(follower.step(b"\0\r\n"), step);
        }
    }
}
