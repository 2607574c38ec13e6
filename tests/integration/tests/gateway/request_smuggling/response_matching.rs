//! Matches responses to requests.

use policy_testbed::public_url::SERVICE_PORT;
use serde_json::json;

use super::SMUGGLED_REQUEST;
use crate::{manual_sandbox, recording_sandbox};

#[test]
fn good_requests_may_come_in_a_row_and_in_pieces() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let texts = [
        sandbox.public_request_text("GET /1", "\r\n"),
        sandbox.public_request_text(
            "POST /2",
            &format!("Content-Length: {}\r\n\r\n{SMUGGLED_REQUEST}", SMUGGLED_REQUEST.len()),
        ),
        sandbox.public_request_text(
            "POST /3",
            "Transfer-Encoding: Chunked\r\n\r\n05;a=\"b\"\r\nhello\r\n00\r\n\r\n",
        ),
        sandbox.public_request_text("GET /4", "Content-Length: 0\r\n\r\n"),
    ];
    let all = texts.concat();
    let mut count = 0;
    for piece in [all.len(), 700, 1] {
        let mut talk = sandbox.testbed.connect_to_gateway();
        for part in all.as_bytes().chunks(piece) {
            talk.send(part);
        }
        for number in 1..=4 {
            let reply = talk.read_response();
            assert!(reply.body.contains(&format!(" /{number} ")), "{number}: {reply:?}");
        }
        count += 4;
        assert_eq!(recorder.request_heads().len(), count);
    }
    assert!(recorder.request_heads().iter().all(|head| !head.starts_with("GET /smuggled")));
    // RFC 9112, 2.2: empty lines before a request are ignored or refused.
    let reply =
        sandbox.testbed.connect_to_gateway().send(format!("\r\n{}", texts[0])).read_response();
    assert!([200, 400].contains(&reply.status), "{reply:?}");
}

#[test]
fn an_unsolicited_response_is_delivered_to_nobody() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue{forged}"));
    assert_eq!(talk.read_response().body, "true");
    talk.send_get(&sandbox.public_host(SERVICE_PORT));
    let mut next = service.accept();
    next.read_head();
    next.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
    assert_eq!(talk.read_response().body, "next");
}

#[test]
fn an_ambiguous_response_is_refused() {
    let (sandbox, service) = manual_sandbox(json!({}));
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: x",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding : identity",
    ] {
        let mut talk = sandbox.send_public_request("GET /", "\r\n");
        let mut served = service.accept();
        served.read_head();
        served.send(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\ntext!"));
        drop(served);
        talk.read_response().assert_from_gateway(502);
    }
}
