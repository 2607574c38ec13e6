//! The length of a request's body, where every server reads the same one.

use httparse::Request;

/// Maximum `Content-Length`: the largest that the HTTP library can count.
const MAX_CONTENT_LENGTH: u64 = u64::MAX / 2;

/// The length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestLength {
    /// This many bytes.
    Fixed(u64),
    /// The body says itself where it ends.
    Chunked,
}

/// The length of a request's body. `None` if it is ambiguous or too long.
pub(super) fn request_length(request: &Request<'_, '_>) -> Option<RequestLength> {
    let values_of = |name: &str| {
        let fields = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value).collect::<Vec<_>>()
    };
    let (codings, lengths) = (values_of("transfer-encoding"), values_of("content-length"));
    match (codings.as_slice(), lengths.as_slice()) {
        // HTTP/1.0 has no chunked coding (RFC 9112, 6.1).
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => {
            Some(RequestLength::Chunked)
        }
        ([], []) => Some(RequestLength::Fixed(0)),
        ([], [length]) => parse_content_length(length)
            .filter(|length| *length <= MAX_CONTENT_LENGTH)
            .map(RequestLength::Fixed),
        _ => None,
    }
}

/// `Content-Length = 1*DIGIT`: no sign, no list.
pub(super) fn parse_content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
