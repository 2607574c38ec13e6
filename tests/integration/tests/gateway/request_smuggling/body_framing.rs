//! The end of a request's body.

use policy_testbed::public_url::SERVICE_PORT;

use super::{SMUGGLED_REQUEST, SmugglingScenario};

#[test]
fn a_length_has_one_reading() {
    let scene = SmugglingScenario::new();
    for (one, other) in [("0", "42"), ("42", "0"), ("42", "42"), ("4", "4")] {
        let fields = format!("Content-Length: {one}\r\nContent-Length: {other}");
        scene.assert_post_refused(&fields, SMUGGLED_REQUEST);
    }
    for length in [
        "0, 42",
        "42, 42",
        "42,",
        "+42",
        "-1",
        "0x2a",
        "4 4",
        "42;",
        "4\u{b}4",
        "",
        "1e1",
        "４",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        scene.assert_post_refused(&format!("Content-Length: {length}"), SMUGGLED_REQUEST);
    }
}

#[test]
fn a_length_and_chunks_exclude_each_other() {
    let scene = SmugglingScenario::new();
    let body = format!("0\r\n\r\n{SMUGGLED_REQUEST}");
    for length in ["0", "5", "6", "49"] {
        let (length, chunked) = (format!("Content-Length: {length}"), "Transfer-Encoding: chunked");
        scene.assert_post_refused(&format!("{length}\r\n{chunked}"), &body);
        scene.assert_post_refused(&format!("{chunked}\r\n{length}"), &body);
    }
}

#[test]
fn an_encoding_is_chunked_and_nothing_else() {
    let scene = SmugglingScenario::new();
    let body = format!("0\r\n\r\n{SMUGGLED_REQUEST}");
    for coding in [
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunkedx",
        "identity",
        "identity, chunked",
        "chunked, identity",
        "gzip, chunked",
        "gzip",
        "\"chunked\"",
        "chunked;a=b",
        "chunked chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "c\u{130}hunked",
        "",
        "cow",
    ] {
        scene.assert_post_refused(&format!("Transfer-Encoding: {coding}"), &body);
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\r\n : chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\r\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer\0-Encoding: chunked",
    ] {
        scene.assert_post_refused(fields, &body);
    }
    let old = format!("POST / HTTP/1.0\r\nHost: {}\r\n", scene.sandbox.public_host(SERVICE_PORT));
    scene.assert_refused(&format!("{old}Transfer-Encoding: chunked\r\n\r\n{body}"));
    scene.assert_refused(&format!(
        "{old}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    ));
}

#[test]
fn chunks_have_one_reading() {
    let scene = SmugglingScenario::new();
    let long = "x".repeat(20_000);
    for body in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\u{b}\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "5;x\r\r\nhello\r\n0\r\n\r\n",
        "5,\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nA: b\n\r\n",
        "5\r\nhello\r\n0\r\n A: b\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nA\0: b\r\n\r\n",
        &format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
        &format!("0\r\nA: {long}\r\n\r\n"),
        &format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(20_000)),
    ] {
        scene.assert_post_refused(
            "Transfer-Encoding: chunked",
            &format!("{body}{SMUGGLED_REQUEST}"),
        );
    }
}
