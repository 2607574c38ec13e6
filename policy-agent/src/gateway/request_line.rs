//! Encodes request targets that contain bytes not allowed in a URI (RFC 3986, 2). Real programs
//! send them: queries with quotation marks and angle brackets, and text in UTF-8 or Latin-1. Their
//! meaning is unambiguous, but the HTTP library refuses them. After percent-encoding they mean the
//! same to every server.

/// Returns the head of a request, complete or not, with its target encoded. `None` if the target
/// needs no encoding.
pub(super) fn percent_encode_target(head: &[u8]) -> Option<Vec<u8>> {
    let line_start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let length = head[line_start..].iter().position(|byte| *byte == b'\n')?;
    let line = &head[line_start..line_start + length];
    let first = line.iter().position(|byte| *byte == b' ')?;
    let last = line.iter().rposition(|byte| *byte == b' ')?;
    let target = &line[first..last];
    if !target.iter().any(|byte| needs_encoding(*byte)) {
        return None;
    }
    let mut encoded = Vec::with_capacity(head.len() + 2 * target.len());
    encoded.extend(&head[..line_start + first]);
    for byte in target {
        if needs_encoding(*byte) {
            encoded.extend(percent_encoding::percent_encode_byte(*byte).bytes());
        } else {
            encoded.push(*byte);
        }
    }
    encoded.extend(&head[line_start + last..]);
    Some(encoded)
}

/// Control characters are excluded: only attacks send them.
const fn needs_encoding(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_target_is_encoded() {
        let text = "\r\nGET /caf\u{e9}?<a>=\"`\" HTTP/1.1\r\nX: \u{e9}\"\r\n";
        let expected = "\r\nGET /caf%C3%A9?%3Ca%3E=%22%60%22 HTTP/1.1\r\nX: \u{e9}\"\r\n";
        assert_eq!(percent_encode_target(text.as_bytes()).as_deref(), Some(expected.as_bytes()));
    }

    #[test]
    fn what_needs_no_encoding_is_left_alone() {
        for text in [
            "",
            "\r\n",
            "GET /?\"",
            "GET\n",
            "GET /?{}|^'%22 HTTP/1.1\r\nX: \"<\r\n",
            "G\"T / HTTP/1.1\r\n",
            "GET / HTTP/1.\"\r\n",
        ] {
            assert_eq!(percent_encode_target(text.as_bytes()), None, "{text:?}");
        }
    }
}
