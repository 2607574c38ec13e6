//! Finds the boundaries of HTTP/1 requests and rejects ambiguous framing.
//!
//! The HTTP library is lenient where servers differ: it accepts a bare LF as a line end, and lets
//! `Transfer-Encoding` override `Content-Length`. What it forwards is unambiguous, but a client
//! that sends such requests is broken or hostile, and gets an error. This parser follows the
//! request boundaries in a client's bytes, using httparse for heads and chunk sizes. It passes on
//! only complete, accepted heads, with their bytes unchanged. The exception are unambiguous targets
//! that the library would refuse ([`request_line`](super::request_line)). After a head, ambiguous
//! bytes are replaced with invalid ones ([`INVALID_CHUNK`]), so that the library aborts the
//! request.

use httparse::{Request, Status, parse_chunk_size};
use hyper::Uri;

use super::request_line;
pub(super) use crate::net::upstream::MAX_HEAD_SIZE;

/// Bytes that no valid chunk starts with.
pub(super) const INVALID_CHUNK: &[u8] = b"\0\r\n\r\n";

/// Maximum number of header fields.
const MAX_HEADERS: usize = 100;
/// Maximum `Content-Length`: the largest that the library can count.
const MAX_CONTENT_LENGTH: u64 = u64::MAX / 2;
/// Maximum length in bytes of a chunk size line, and of all trailers.
const MAX_LINE: usize = 8 * 1024;

/// The parser state of one connection.
#[derive(Debug, Default)]
pub(super) struct RequestFramer {
    state: FramerState,
    /// Size of the trailers so far, in bytes.
    trailer_bytes: usize,
    /// Bytes of an incomplete head that have already been scanned for its end.
    scanned: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FramerState {
    /// At the start of a head.
    #[default]
    Head,
    /// In a body with this many bytes left.
    Body(u64),
    /// At the start of a chunk size line.
    ChunkSize,
    /// In a chunk with this many bytes left, including its CRLF.
    Chunk(u64),
    /// At the start of a trailer line, after the last chunk.
    Trailers,
    /// After a request that offers an upgrade. What follows may not be HTTP.
    UpgradeOffered,
    /// After an accepted upgrade.
    Upgraded,
    /// Rejected because of ambiguous framing.
    Invalid,
}

/// The result of a parser step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FramingStep {
    /// Forward this many bytes.
    Forward(usize),
    /// Replace this many bytes, which are the head of a request, with these bytes.
    Rewrite(usize, Vec<u8>),
    /// More bytes are needed.
    NeedMore,
    /// Forward nothing until the offered upgrade is resolved.
    AwaitUpgrade,
    /// The bytes are ambiguous or invalid.
    Reject,
}

impl RequestFramer {
    /// Parses `bytes`, which follow all bytes forwarded so far.
    pub(super) fn step(&mut self, bytes: &[u8]) -> FramingStep {
        let step = self.parse(bytes);
        if step == FramingStep::Reject {
            self.state = FramerState::Invalid;
        }
        step
    }

    /// Whether the next bytes belong to the head of a request.
    pub(super) fn is_in_head(&self) -> bool {
        self.state == FramerState::Head
    }

    /// Reports whether the server accepted the offered upgrade.
    pub(super) fn resolve_upgrade(&mut self, accepted: bool) {
        if self.state == FramerState::UpgradeOffered {
            self.state = if accepted { FramerState::Upgraded } else { FramerState::Head };
        }
    }

    fn parse(&mut self, bytes: &[u8]) -> FramingStep {
        if bytes.is_empty() {
            return FramingStep::NeedMore;
        }
        match self.state {
            FramerState::Head => self.parse_head(bytes),
            FramerState::Body(left) => self.parse_body(bytes, left),
            FramerState::Chunk(left) => self.parse_chunk(bytes, left),
            FramerState::ChunkSize => self.parse_chunk_header(bytes),
            FramerState::Trailers => self.parse_trailer_line(bytes),
            FramerState::UpgradeOffered => FramingStep::AwaitUpgrade,
            FramerState::Upgraded => FramingStep::Forward(bytes.len()),
            FramerState::Invalid => FramingStep::Reject,
        }
    }

    fn parse_head(&mut self, bytes: &[u8]) -> FramingStep {
        // Without a new line there is nothing to parse, however slowly a head arrives.
        let unscanned = bytes.get(self.scanned..).unwrap_or(bytes);
        self.scanned = bytes.len();
        if !unscanned.contains(&b'\n') && bytes.len() < MAX_HEAD_SIZE {
            return FramingStep::NeedMore;
        }
        let rewritten = request_line::percent_encode_target(bytes);
        let head = rewritten.as_deref().unwrap_or(bytes);
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = Request::new(&mut fields);
        match request.parse(head) {
            Ok(Status::Complete(end)) => {
                let length = end - (head.len() - bytes.len());
                // The library has the same limit, for the head as it is passed on.
                let is_valid = end <= MAX_HEAD_SIZE && has_only_crlf_line_ends(&head[..end]);
                let Some(state) = is_valid.then(|| state_after_head(&request)).flatten() else {
                    return FramingStep::Reject;
                };
                let step = self.transition(state, length);
                rewritten.map_or(step, |mut head| {
                    head.truncate(end);
                    FramingStep::Rewrite(length, head)
                })
            }
            Ok(Status::Partial) if bytes.len() < MAX_HEAD_SIZE => FramingStep::NeedMore,
            _ => FramingStep::Reject,
        }
    }

    fn parse_chunk_header(&mut self, bytes: &[u8]) -> FramingStep {
        match parse_chunk_size(bytes) {
            Ok(Status::Complete((length, size))) => {
                let line = &bytes[..length];
                let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let plain = digits > 0 && matches!(line[digits], b';' | b'\r');
                let Some(chunk) = size.checked_add(2) else { return FramingStep::Reject };
                if !plain || length > MAX_LINE || !has_only_crlf_line_ends(line) {
                    return FramingStep::Reject;
                }
                self.trailer_bytes = 0;
                self.transition(
                    if size == 0 { FramerState::Trailers } else { FramerState::Chunk(chunk) },
                    length,
                )
            }
            Ok(Status::Partial) if bytes.len() < MAX_LINE => FramingStep::NeedMore,
            _ => FramingStep::Reject,
        }
    }

    /// A chunk must end with exactly CRLF, so its last two bytes are checked.
    fn parse_chunk(&mut self, bytes: &[u8], left: u64) -> FramingStep {
        let data = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX);
        if data > 0 {
            let count = data.min(bytes.len());
            return self.transition(FramerState::Chunk(left - count as u64), count);
        }
        match bytes {
            [b'\r'] => FramingStep::NeedMore,
            [b'\r', b'\n', ..] => self.transition(FramerState::ChunkSize, 2),
            _ => FramingStep::Reject,
        }
    }

    fn parse_trailer_line(&mut self, bytes: &[u8]) -> FramingStep {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() < MAX_LINE {
                FramingStep::NeedMore
            } else {
                FramingStep::Reject
            };
        };
        let line = &bytes[..=end];
        self.trailer_bytes += line.len();
        if !line.ends_with(b"\r\n") || self.trailer_bytes > MAX_LINE {
            return FramingStep::Reject;
        }
        self.transition(
            if line == b"\r\n" { FramerState::Head } else { FramerState::Trailers },
            line.len(),
        )
    }

    fn parse_body(&mut self, bytes: &[u8], left: u64) -> FramingStep {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - count as u64;
        self.transition(if left == 0 { FramerState::Head } else { FramerState::Body(left) }, count)
    }

    fn transition(&mut self, state: FramerState, count: usize) -> FramingStep {
        (self.state, self.scanned) = (state, 0);
        FramingStep::Forward(count)
    }
}

/// The state after the head of a request. `None` if its target is invalid or its length ambiguous.
fn state_after_head(request: &Request<'_, '_>) -> Option<FramerState> {
    let values_of = |name: &str| {
        let fields = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value).collect::<Vec<_>>()
    };
    if request.method == Some("CONNECT") || request.path?.parse::<Uri>().is_err() {
        return None;
    }
    let (codings, lengths) = (values_of("transfer-encoding"), values_of("content-length"));
    let length = match (codings.as_slice(), lengths.as_slice()) {
        // HTTP/1.0 has no chunked coding (RFC 9112, 6.1).
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => {
            return Some(FramerState::ChunkSize);
        }
        ([], []) => 0,
        ([], [length]) => {
            parse_content_length(length).filter(|length| *length <= MAX_CONTENT_LENGTH)?
        }
        _ => return None,
    };
    Some(match length {
        0 if !values_of("upgrade").is_empty() => FramerState::UpgradeOffered,
        0 => FramerState::Head,
        length => FramerState::Body(length),
    })
}

/// `Content-Length = 1*DIGIT`: no sign, no list.
pub(super) fn parse_content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn has_only_crlf_line_ends(text: &[u8]) -> bool {
    let mut previous = 0;
    text.iter().all(|byte| {
        let is_valid = match byte {
            b'\n' => previous == b'\r',
            _ => previous != b'\r',
        };
        previous = *byte;
        is_valid
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the requests in `text`, fed in pieces of this size. `None` if they are rejected.
    fn count_requests(text: &[u8], piece: usize) -> Option<usize> {
        let mut framer = RequestFramer::default();
        let (mut buffered, mut count) = (Vec::new(), 0);
        for piece in text.chunks(piece) {
            buffered.extend_from_slice(piece);
            loop {
                let at_head = framer.is_in_head();
                match framer.step(&buffered) {
                    FramingStep::Forward(length) => {
                        assert!(length > 0 && length <= buffered.len());
                        count += usize::from(at_head);
                        buffered.drain(..length);
                    }
                    FramingStep::NeedMore => break,
                    FramingStep::AwaitUpgrade | FramingStep::Reject | FramingStep::Rewrite(..) => {
                        return None;
                    }
                }
            }
        }
        assert!(buffered.is_empty() && framer.is_in_head(), "cut off: {buffered:?}");
        Some(count)
    }

    #[track_caller]
    fn assert_request_count(text: &str, expected: Option<usize>) {
        for piece in [1, 2, 3, 7, text.len()] {
            assert_eq!(count_requests(text.as_bytes(), piece), expected, "{text:?} by {piece}");
        }
    }

    #[test]
    fn requests_are_framed() {
        assert_request_count("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(1));
        assert_request_count("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(2));
        assert_request_count(
            "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET GET / HTTP/1.1\r\n\r\n",
            Some(2),
        );
        assert_request_count("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Some(1));
        assert_request_count(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
             4;x=y\r\nabcd\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            Some(2),
        );
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let post = |fields: &str, body: &str| {
            assert_request_count(
                &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}"),
                None,
            );
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
        assert_request_count("GET / HTTP/1.1\nHost: a\n\n", None);
        assert_request_count("GET / HTTP/1.1\r\nHost: a\n\r\n", None);
        assert_request_count(
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            None,
        );
        assert_request_count("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", None);
        assert_request_count("\0\r\n\r\n", None);
    }

    #[test]
    fn a_clear_target_goes_on_in_the_librarys_spelling() {
        let rest = b" HTTP/1.1\r\nX: \"<\r\n\r\n";
        let text = [&b"POST /?q=up{job=\"x\"}&l=\xe9"[..], rest, b"GET /"].concat();
        let length = text.len() - 5;
        let expected = [&b"POST /?q=up{job=%22x%22}&l=%E9"[..], rest].concat();
        for available in 1..length {
            let mut framer = RequestFramer::default();
            assert_eq!(framer.step(&text[..available]), FramingStep::NeedMore);
            assert_eq!(framer.step(&text), FramingStep::Rewrite(length, expected.clone()));
            assert!(framer.is_in_head());
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for target in ["/\u{7f}", "http://", "a b", "http://[", &"\"".repeat(MAX_HEAD_SIZE / 3)] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(
                RequestFramer::default().step(text.as_bytes()),
                FramingStep::Reject,
                "{target}"
            );
        }
    }

    #[test]
    fn a_head_has_a_limit() {
        let long = "a".repeat(MAX_HEAD_SIZE);
        assert_request_count(
            &format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", &long[..MAX_HEAD_SIZE - 30]),
            Some(1),
        );
        let text = format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n");
        assert_eq!(count_requests(text.as_bytes(), 4096), None);
        let quotes = |count| format!("GET /{} HTTP/1.1\r\nA: ", "\"".repeat(count));
        let padded = |start: String, length| {
            let field = "a".repeat(length - start.len() - 4);
            RequestFramer::default().step(format!("{start}{field}\r\n\r\n").as_bytes())
        };
        // Percent-encoding makes the head longer by two bytes for each of these.
        let encoded = padded(quotes(500), MAX_HEAD_SIZE - 1000);
        assert!(matches!(encoded, FramingStep::Rewrite(..)), "{encoded:?}");
        assert_eq!(padded(quotes(500), MAX_HEAD_SIZE - 999), FramingStep::Reject);
        let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
        assert_request_count(&format!("GET / HTTP/1.1\r\n{many}\r\n"), None);
    }

    #[test]
    fn nothing_is_forwarded_until_an_upgrade_offer_is_resolved() {
        let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        for (accepted, step) in [(true, FramingStep::Forward(3)), (false, FramingStep::Reject)] {
            let mut framer = RequestFramer::default();
            assert_eq!(framer.step(head), FramingStep::Forward(head.len()));
            assert_eq!(framer.step(b"\0\r\n"), FramingStep::AwaitUpgrade);
            framer.resolve_upgrade(accepted);
            assert_eq!(framer.step(b"\0\r\n"), step);
        }
    }
}
