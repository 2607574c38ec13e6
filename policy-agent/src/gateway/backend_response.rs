//! Sanitizes the head of a service's response, so that it has exactly one interpretation. Services
//! are numerous and old, so the gateway accepts what other gateways accept. The HTTP library frames
//! the body again.

use hyper::{
    Response, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderValue},
};

use super::{backend::BackendError, request_length::parse_content_length};
use crate::net::hop_by_hop;

/// Removes hop-by-hop fields and all framing fields except one valid `Content-Length`.
///
/// # Errors
/// The end of the body or its encoding is ambiguous.
pub(super) fn sanitize_response(response: &mut Response<Incoming>) -> Result<(), BackendError> {
    let status = response.status();
    normalize_framing(response.headers_mut(), status)?;
    hop_by_hop::strip_hop_by_hop(response.headers_mut());
    Ok(())
}

fn normalize_framing(headers: &mut HeaderMap, status: StatusCode) -> Result<(), BackendError> {
    // A body in any other coding would reach the client without the field that declares the coding.
    if !hop_by_hop::has_unambiguous_framing(headers) {
        return Err(BackendError::InvalidResponse);
    }
    let is_chunked = headers.remove(header::TRANSFER_ENCODING).is_some();
    // Chunked framing overrides `Content-Length` (RFC 9112, 6.3).
    if is_chunked || status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
        return Ok(());
    }
    if let Some(length) = agreed_content_length(headers)? {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(())
}

/// The content length, if all values of all fields agree on it (RFC 9110, 8.6).
fn agreed_content_length(headers: &HeaderMap) -> Result<Option<u64>, BackendError> {
    let mut agreed_length = None;
    for field in headers.get_all(header::CONTENT_LENGTH) {
        for text in field.as_bytes().split(|byte| *byte == b',') {
            let length =
                parse_content_length(text.trim_ascii()).ok_or(BackendError::InvalidResponse)?;
            if agreed_length.replace(length).is_some_and(|previous| previous != length) {
                return Err(BackendError::InvalidResponse);
            }
        }
    }
    Ok(agreed_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reframed(fields: &[(&str, &str)], status: u16) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: header::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        normalize_framing(&mut headers, status).ok()?;
        let format_field = |(name, value): (&header::HeaderName, &HeaderValue)| {
            format!("{name}={}", value.to_str().expect("text"))
        };
        Some(headers.iter().map(format_field).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn one_length_stays_or_none() {
        let (length, coding) = ("content-length", "transfer-encoding");
        let is = |text: &str| Some(text.to_owned());
        for (fields, status, expected) in [
            (&[(length, "5")][..], 200, is("content-length=5")),
            (&[(length, "5"), (length, "5")], 200, is("content-length=5")),
            (&[(length, "5, 5")], 200, is("content-length=5")),
            (&[(length, "005")], 200, is("content-length=5")),
            (&[(length, "5, 6")], 200, None),
            (&[(length, "5"), (length, "6")], 200, None),
            (&[(length, "+5")], 200, None),
            (&[(length, "")], 200, None),
            (&[(coding, "chunked")], 200, is("")),
            (&[(coding, "Chunked"), (length, "5")], 200, is("")),
            (&[(coding, "chunked"), (coding, "chunked")], 200, None),
            (&[(coding, "gzip, chunked")], 200, None),
            (&[(coding, "identity")], 200, None),
            (&[(length, "5")], 204, is("")),
            (&[(length, "5")], 304, is("content-length=5")),
            (&[], 200, is("")),
        ] {
            assert_eq!(reframed(fields, status), expected, "{fields:?} {status}");
        }
    }
}
