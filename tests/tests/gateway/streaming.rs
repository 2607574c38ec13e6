//! Bodies go through as they come, in both directions, of any length; and what breaks off is never
//! taken for whole.

use std::io::Write as _;

use policy_tests::{
    gateway::PORT,
    names::pages,
    stage::{Guest, OrFail as _},
};
use serde_json::json;

use crate::{played, recorded, website};

/// Bytes of a large body.
const LARGE: usize = 100_000_000;

/// curl's exit status when a body is cut off, over HTTP/1.1 and over HTTP/2.
const CUT_OFF: [i32; 3] = [18, 92, 56];

/// How curl comes: the scheme, and the version of HTTP.
const WAYS: [(&str, &str); 4] = [
    ("http", "--http1.1"),
    ("http", "--http2-prior-knowledge"),
    ("https", "--http1.1"),
    ("https", "--http2"),
];

#[test]
fn large_bodies_arrive_byte_by_byte() {
    let (sandbox, _website) = website(json!({}));
    let file = tempfile::NamedTempFile::new().or_fail("a file");
    for block in pages::noise(LARGE) {
        file.as_file().write_all(&block).or_fail("writing the file");
    }
    let upload = format!("@{}", file.path().display());
    let expected = pages::digest_of_noise(LARGE);
    for (scheme, version) in WAYS {
        let down = sandbox.fetch(scheme, &format!("/bytes/{LARGE}")).with(&[version]).run();
        assert_eq!((down.exit, down.body.len()), (0, LARGE), "{scheme} {version}: {}", down.stderr);
        let same =
            down.body.chunks(65_536).zip(pages::noise(LARGE)).all(|(one, other)| one == other);
        assert!(same, "{scheme} {version}: other bytes come down");
        for more in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["-H", "Expect:"]] {
            let up = sandbox.fetch(scheme, "/digest").with(&[version, "--data-binary", &upload]);
            let up = up.with(more).run();
            assert_eq!(up.page()["length"], LARGE, "{scheme} {version} {more:?}: {up:?}");
            assert_eq!(up.page()["sha256"], expected, "{scheme} {version} {more:?}");
        }
    }
}

#[test]
fn events_arrive_one_by_one() {
    let (sandbox, service) = played(json!({}));
    for end in ["Transfer-Encoding: chunked", "Connection: close"] {
        let mut talk = sandbox.ask("GET /events", "Accept: text/event-stream\r\n\r\n");
        let mut served = service.accept();
        served.head();
        served.say(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{end}\r\n\r\n"));
        for number in 0..5 {
            let event = format!("data: event {number}\n\n");
            let chunk = if end.contains("chunked") {
                format!("{:x}\r\n{event}\r\n", event.len())
            } else {
                event.clone()
            };
            served.say(&chunk);
            // The next is not sent before this one is here.
            let seen = talk.until(&event);
            assert!(seen.contains(&event), "{seen:?}");
        }
    }
}

#[test]
fn uploads_arrive_part_by_part_while_the_answer_flows() {
    let (sandbox, service) = played(json!({}));
    let mut talk = sandbox.ask("POST /talk", "Transfer-Encoding: chunked\r\n\r\n");
    let mut served = service.accept();
    served.head();
    served.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for number in 0..5 {
        talk.say(format!("7\r\n<up {number} >\r\n"));
        served.until(&format!("<up {number} >"));
        served.say(&format!("9\r\n<down {number} >\r\n"));
        talk.until(&format!("<down {number} >"));
    }
    talk.say("0\r\n\r\n");
    served.until("0\r\n\r\n");
    served.say("0\r\n\r\n");
    talk.until("0\r\n\r\n");
}

#[test]
fn a_client_may_wait_to_be_told_to_go_on() {
    let (sandbox, recorder) = recorded(json!({}));
    let mut talk = sandbox.ask("POST /", "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(talk.reply().status, 100);
    assert_eq!(talk.say("hello").reply().status, 200);
    assert!(recorder.text().ends_with("hello"), "{}", recorder.text());
    // On the same connection, without waiting.
    let text = sandbox.request("POST /", "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
    let mut statuses = vec![talk.say(text).reply().status];
    if statuses == [100] {
        statuses.push(talk.reply().status);
    }
    assert_eq!(statuses.last(), Some(&200));
}

#[test]
fn an_answer_may_come_before_the_body() {
    let (sandbox, service) = played(json!({}));
    let mut talk = sandbox.ask("POST /", "Content-Length: 1000\r\n\r\npart");
    let mut served = service.accept();
    served.head();
    served.say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(talk.reply().status, 413);
}

#[test]
fn an_answer_that_breaks_off_is_not_whole() {
    let (sandbox, service) = played(json!({}));
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        for (scheme, version) in WAYS {
            let fetched = std::thread::scope(|scope| {
                let curl = sandbox.fetch(scheme, "/").with(&[version]);
                let client = scope.spawn(move || curl.run());
                let mut served = service.accept();
                served.head();
                served.say(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n6\r\nabcdef\r\n"));
                drop(served);
                client.join().unwrap_or_else(|_| panic!("curl's thread panicked"))
            });
            let cut_off = CUT_OFF.contains(&fetched.exit);
            assert!(cut_off, "{framing} {scheme} {version}: {fetched:?}");
        }
    }
}

#[test]
fn an_upload_that_breaks_off_is_not_whole() {
    let (sandbox, service) = played(json!({}));
    for (framing, part) in
        [("Content-Length: 1000", "part"), ("Transfer-Encoding: chunked", "4\r\npart\r\n")]
    {
        let talk = sandbox.ask("POST /", &format!("{framing}\r\n\r\n{part}"));
        let mut served = service.accept();
        served.head();
        served.until("part");
        drop(talk);
        let rest = served.rest();
        assert!(!rest.contains('0'), "{framing}: an end that never was: {rest:?}");
    }
}

#[test]
fn a_service_learns_that_its_client_is_gone() {
    let (sandbox, service) = played(json!({}));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n";
    let mut talk = sandbox.ask("GET /", "\r\n");
    let mut served = service.accept();
    served.head();
    served.say(head);
    talk.until(".");
    drop(talk);
    ends(&mut served);
}

/// Whether the gateway ends a connection on which the service goes on sending.
#[track_caller]
fn ends(served: &mut policy_tests::gateway::service::Served) {
    let ended = policy_tests::patience::eventually("the gateway ends the connection", || {
        served.stream.write_all(b"1\r\n.\r\n").err()
    });
    ended.or_fail("sending to nobody");
}

#[test]
fn a_slow_reader_gets_all() {
    let (sandbox, _website) = website(json!({}));
    let length = 5_000_000;
    let fetched = slowly(&sandbox, &format!("/bytes/{length}"));
    assert_eq!((fetched.exit, fetched.body.len()), (0, length), "{}", fetched.stderr);
    let slow = sandbox.stage.visitor(&format!("https://{}/slowly", sandbox.host(PORT))).run();
    assert_eq!(slow.text(), "part 1\npart 2\npart 3\npart 4\npart 5\n");
}

fn slowly(sandbox: &Guest, path: &str) -> policy_tests::names::curl::Fetched {
    sandbox.fetch("http", path).with(&["--limit-rate", "4M"]).run()
}
