//! Which answer belongs to which request.

use policy_tests::gateway::PORT;
use serde_json::json;

use super::SMUGGLED;
use crate::{played, recorded};

#[test]
fn good_requests_may_come_in_a_row_and_in_pieces() {
    let (sandbox, recorder) = recorded(json!({}));
    let texts = [
        sandbox.request("GET /1", "\r\n"),
        sandbox
            .request("POST /2", &format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len())),
        sandbox.request(
            "POST /3",
            "Transfer-Encoding: Chunked\r\n\r\n05;a=\"b\"\r\nhello\r\n00\r\n\r\n",
        ),
        sandbox.request("GET /4", "Content-Length: 0\r\n\r\n"),
    ];
    let all = texts.concat();
    let mut count = 0;
    for piece in [all.len(), 700, 1] {
        let mut talk = sandbox.stage.knock();
        for part in all.as_bytes().chunks(piece) {
            talk.say(part);
        }
        for number in 1..=4 {
            let reply = talk.reply();
            assert!(reply.body.contains(&format!(" /{number} ")), "{number}: {reply:?}");
        }
        count += 4;
        assert_eq!(recorder.heads().len(), count);
    }
    assert!(recorder.heads().iter().all(|head| !head.starts_with("GET /smuggled")));
    // RFC 9112, 2.2: empty lines in front of a request are ignored, or refused.
    let reply = sandbox.stage.knock().say(format!("\r\n{}", texts[0])).reply();
    assert!([200, 400].contains(&reply.status), "{reply:?}");
}

#[test]
fn an_answer_that_nobody_asked_for_is_for_nobody() {
    let (sandbox, service) = played(json!({}));
    let mut talk = sandbox.ask("GET /", "\r\n");
    let mut served = service.accept();
    served.head();
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    served.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue{forged}"));
    assert_eq!(talk.reply().body, "true");
    talk.get(&sandbox.host(PORT));
    let mut next = service.accept();
    next.head();
    next.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
    assert_eq!(talk.reply().body, "next");
}

#[test]
fn an_answer_with_two_readings_is_none() {
    let (sandbox, service) = played(json!({}));
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: x",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding : identity",
    ] {
        let mut talk = sandbox.ask("GET /", "\r\n");
        let mut served = service.accept();
        served.head();
        served.say(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\ntext!"));
        drop(served);
        talk.reply().is_of_gateway(502);
    }
}
