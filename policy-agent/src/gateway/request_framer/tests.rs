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
    for coding in ["chunked, chunked", "gzip, chunked", "xchunked", "identity", "", "\x0bchunked"] {
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
    assert_request_count("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None);
    assert_request_count("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", None);
    assert_request_count("\0\r\n\r\n", None);
}

#[test]
fn tunnels_are_followed_by_anything_once_they_are_open() {
    let head = b"CONNECT 22-a.example.com:22 HTTP/1.1\r\n\r\n";
    for is_open in [false, true] {
        let mut framer = RequestFramer::new(true);
        assert_eq!(framer.step(head), FramingStep::Forward(head.len()));
        assert_eq!(framer.step(b"SSH-2.0"), FramingStep::AwaitUpgrade);
        framer.resolve_upgrade(is_open);
        let after = framer.step(b"SSH-2.0\r\n\r\n");
        assert_eq!(after, if is_open { FramingStep::Forward(11) } else { FramingStep::Reject });
    }
    for request in [
        "CONNECT / HTTP/1.1\r\n\r\n",
        "CONNECT http://a.example.com:22/ HTTP/1.1\r\n\r\n",
        "CONNECT a.example.com HTTP/1.1\r\n\r\n",
        "CONNECT fault:2 HTTP/1.1\r\n\r\n",
        "CONNECT a:22 HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        "CONNECT a:22 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let step = RequestFramer::new(true).step(request.as_bytes());
        assert_eq!(step, FramingStep::Reject, "{request}");
    }
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
        assert_eq!(RequestFramer::default().step(text.as_bytes()), FramingStep::Reject, "{target}");
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
