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

use super::{
    head_fault::MARKER_HOST,
    request_length::{RequestLength, request_length},
    request_line,
};
pub(super) use crate::net::upstream::MAX_HEAD_SIZE;

/// Bytes that no valid chunk starts with.
pub(super) const INVALID_CHUNK: &[u8] = b"\0\r\n\r\n";

/// Maximum number of header fields.
const MAX_HEADERS: usize = 100;
/// Maximum length in bytes of a chunk size line, and of all trailers.
const MAX_LINE: usize = 8 * 1024;

/// The parser state of one connection.
#[derive(Debug, Default)]
pub(super) struct RequestFramer {
    state: FramerState,
    /// Whether CONNECT may open a tunnel, after which nothing is HTTP.
    allows_tunnels: bool,
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
    /// Creates the parser of a connection.
    pub(super) fn new(allows_tunnels: bool) -> Self {
        Self { allows_tunnels, ..Self::default() }
    }

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
                let Some(state) = is_valid.then(|| self.state_after_head(&request)).flatten()
                else {
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

    /// The state after the head of a request. `None` if its target is invalid or its length
    /// ambiguous.
    fn state_after_head(&self, request: &Request<'_, '_>) -> Option<FramerState> {
        let target: Uri = request.path?.parse().ok()?;
        let is_connect = request.method == Some("CONNECT");
        if is_connect && !(self.allows_tunnels && is_tunnel_target(&target)) {
            return None;
        }
        Some(match request_length(request)? {
            RequestLength::Fixed(0) if is_connect || has_field(request, "upgrade") => {
                FramerState::UpgradeOffered
            }
            _ if is_connect => return None,
            RequestLength::Chunked => FramerState::ChunkSize,
            RequestLength::Fixed(0) => FramerState::Head,
            RequestLength::Fixed(length) => FramerState::Body(length),
        })
    }

    fn transition(&mut self, state: FramerState, count: usize) -> FramingStep {
        (self.state, self.scanned) = (state, 0);
        FramingStep::Forward(count)
    }
}

/// Whether a target is a host and a port, as CONNECT has it (RFC 9112, 3.2.3), and no marker.
fn is_tunnel_target(target: &Uri) -> bool {
    let is_authority = target.scheme().is_none() && target.path_and_query().is_none();
    is_authority && target.port().is_some() && target.host() != Some(MARKER_HOST)
}

fn has_field(request: &Request<'_, '_>, name: &str) -> bool {
    request.headers.iter().any(|field| field.name.eq_ignore_ascii_case(name))
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
mod tests;
