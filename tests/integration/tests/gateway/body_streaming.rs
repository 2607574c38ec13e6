//! Bodies of any length are streamed in both directions, and an aborted body never appears
//! complete.

use std::io::Write as _;

use policy_testbed::{
    named_internet::web_pages::{self, LARGE_BODY_BYTES, LARGEST_BODY_BYTES},
    public_url::SERVICE_PORT,
    testbed::{OrFail as _, TestSandbox},
};
use serde_json::json;

use crate::{manual_sandbox, recording_sandbox, website_sandbox};

/// curl arguments for uploads that differ from the default.
const UPLOAD_ARGUMENTS: [&[&str]; 2] = [&["-H", "Transfer-Encoding: chunked"], &["-H", "Expect:"]];

/// curl's exit statuses for a truncated body, over HTTP/1.1 and over HTTP/2.
const CURL_CUT_OFF_EXITS: [i32; 3] = [18, 92, 56];

/// The scheme and the HTTP version of curl's requests.
const CURL_MODES: [(&str, &str); 4] = [
    ("http", "--http1.1"),
    ("http", "--http2-prior-knowledge"),
    ("https", "--http1.1"),
    ("https", "--http2"),
];

#[test]
fn large_bodies_arrive_byte_by_byte() {
    let (sandbox, _website) = website_sandbox(json!({}));
    let [largest, large] = [LARGEST_BODY_BYTES, LARGE_BODY_BYTES].map(RandomUpload::new);
    for (scheme, version) in CURL_MODES {
        let upload = if scheme == "http" { &largest } else { &large };
        assert_download_arrives(&sandbox, scheme, version, upload.length);
        assert_upload_arrives(&sandbox, scheme, &[version], upload);
        for more in UPLOAD_ARGUMENTS {
            assert_upload_arrives(&sandbox, scheme, &[&[version], more].concat(), &large);
        }
    }
}

/// A file of random bytes.
struct RandomUpload {
    file: tempfile::NamedTempFile,
    length: usize,
    digest: String,
}

impl RandomUpload {
    fn new(length: usize) -> Self {
        let file = tempfile::NamedTempFile::new().or_fail("a file");
        for block in web_pages::random_blocks(length) {
            file.as_file().write_all(&block).or_fail("writing the file");
        }
        Self { file, length, digest: web_pages::random_blocks_digest(length) }
    }
}

#[track_caller]
fn assert_download_arrives(sandbox: &TestSandbox, scheme: &str, version: &str, length: usize) {
    let path = format!("/bytes/{length}");
    let fetched = sandbox.curl_public_url(scheme, &path).with_arguments(&[version]).run();
    assert_eq!(
        (fetched.exit_code, fetched.body.len()),
        (0, length),
        "{scheme} {version}: {}",
        fetched.stderr
    );
    let mut pieces = fetched.body.chunks(65_536).zip(web_pages::random_blocks(length));
    assert!(pieces.all(|(one, other)| one == other), "{scheme} {version}: other bytes arrive");
}

#[track_caller]
fn assert_upload_arrives(
    sandbox: &TestSandbox,
    scheme: &str,
    arguments: &[&str],
    upload: &RandomUpload,
) {
    let data = format!("@{}", upload.file.path().display());
    let curl = sandbox.curl_public_url(scheme, "/digest").with_arguments(arguments);
    let fetched = curl.with_arguments(&["--data-binary", &data]).run();
    let page = fetched.page_json();
    assert_eq!(page["length"], upload.length, "{scheme} {arguments:?}: {fetched:?}");
    assert_eq!(page["sha256"], upload.digest, "{scheme} {arguments:?}");
}

#[test]
fn events_arrive_one_by_one() {
    let (sandbox, service) = manual_sandbox(json!({}));
    for end in ["Transfer-Encoding: chunked", "Connection: close"] {
        let mut talk =
            sandbox.send_public_request("GET /events", "Accept: text/event-stream\r\n\r\n");
        let mut served = service.accept();
        served.read_head();
        served
            .send(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{end}\r\n\r\n"));
        for number in 0..5 {
            let event = format!("data: event {number}\n\n");
            let chunk = if end.contains("chunked") {
                format!("{:x}\r\n{event}\r\n", event.len())
            } else {
                event.clone()
            };
            served.send(&chunk);
            // The next event is not sent before this one has arrived.
            let seen = talk.read_until(&event);
            assert!(seen.contains(&event), "{seen:?}");
        }
    }
}

#[test]
fn uploads_arrive_part_by_part_while_the_answer_flows() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut talk = sandbox.send_public_request("POST /talk", "Transfer-Encoding: chunked\r\n\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for number in 0..5 {
        talk.send(format!("7\r\n<up {number} >\r\n"));
        served.read_until(&format!("<up {number} >"));
        served.send(&format!("9\r\n<down {number} >\r\n"));
        talk.read_until(&format!("<down {number} >"));
    }
    talk.send("0\r\n\r\n");
    served.read_until("0\r\n\r\n");
    served.send("0\r\n\r\n");
    talk.read_until("0\r\n\r\n");
}

#[test]
fn a_client_may_expect_continue() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let mut talk =
        sandbox.send_public_request("POST /", "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(talk.read_response().status, 100);
    assert_eq!(talk.send("hello").read_response().status, 200);
    assert!(recorder.received_text().ends_with("hello"), "{}", recorder.received_text());
    // Another request on the same connection, without waiting.
    let text = sandbox
        .public_request_text("POST /", "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
    let mut statuses = vec![talk.send(text).read_response().status];
    if statuses == [100] {
        statuses.push(talk.read_response().status);
    }
    assert_eq!(statuses.last(), Some(&200));
}

#[test]
fn a_service_decides_whether_it_wants_the_body() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let fields = "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut talk = sandbox.send_public_request("POST /", fields);
    let mut served = service.accept();
    let head = served.read_head().to_lowercase();
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    served.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(talk.read_response().status, 100);
    talk.send("hello");
    served.read_until("hello");
    served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(talk.read_response().status, 200);
    // Both connections carry another request, whose body the service does not want.
    talk.send(sandbox.public_request_text("POST /", fields));
    served.read_head();
    served.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let reply = talk.read_response();
    assert_eq!((reply.status, &*reply.body, reply.announces_close), (403, "no", true));
    talk.read_to_close();
    assert_eq!(served.read_to_close(), "");
}

#[test]
fn an_answer_may_come_before_the_body() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut talk = sandbox.send_public_request("POST /", "Content-Length: 1000\r\n\r\npart");
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(talk.read_response().status, 413);
}

#[test]
fn an_answer_that_breaks_off_is_not_whole() {
    let (sandbox, service) = manual_sandbox(json!({}));
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        for (scheme, version) in CURL_MODES {
            let fetched = std::thread::scope(|scope| {
                let curl = sandbox.curl_public_url(scheme, "/").with_arguments(&[version]);
                let client = scope.spawn(move || curl.run());
                let mut served = service.accept();
                served.read_head();
                served.send(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n6\r\nabcdef\r\n"));
                drop(served);
                client.join().unwrap_or_else(|_| panic!("curl's thread panicked"))
            });
            let cut_off = CURL_CUT_OFF_EXITS.contains(&fetched.exit_code);
            assert!(cut_off, "{framing} {scheme} {version}: {fetched:?}");
        }
    }
}

#[test]
fn an_upload_that_breaks_off_is_not_whole() {
    let (sandbox, service) = manual_sandbox(json!({}));
    for (framing, part) in
        [("Content-Length: 1000", "part"), ("Transfer-Encoding: chunked", "4\r\npart\r\n")]
    {
        let talk = sandbox.send_public_request("POST /", &format!("{framing}\r\n\r\n{part}"));
        let mut served = service.accept();
        served.read_head();
        served.read_until("part");
        drop(talk);
        let rest = served.read_to_close();
        assert!(!rest.contains('0'), "{framing}: an end that never was: {rest:?}");
    }
}

#[test]
fn a_service_learns_that_its_client_is_gone() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n";
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send(head);
    talk.read_until(".");
    drop(talk);
    assert_ends(&mut served);
}

/// Asserts that the gateway ends a connection on which the service keeps sending.
#[track_caller]
fn assert_ends(served: &mut policy_testbed::public_url::manual_service::ServiceConnection) {
    let ended = policy_testbed::wait::eventually("the gateway ends the connection", || {
        served.stream.write_all(b"1\r\n.\r\n").err()
    });
    ended.or_fail("sending to nobody");
}

#[test]
fn a_slow_reader_gets_all() {
    let (sandbox, _website) = website_sandbox(json!({}));
    let length = 5_000_000;
    let fetched = fetch_slowly(&sandbox, &format!("/bytes/{length}"));
    assert_eq!((fetched.exit_code, fetched.body.len()), (0, length), "{}", fetched.stderr);
    let slow = sandbox
        .testbed
        .curl_from_internet(&format!("https://{}/slowly", sandbox.public_host(SERVICE_PORT)))
        .run();
    assert_eq!(slow.text(), "part 1\npart 2\npart 3\npart 4\npart 5\n");
}

fn fetch_slowly(
    sandbox: &TestSandbox,
    path: &str,
) -> policy_testbed::named_internet::curl::CurlResult {
    sandbox.curl_public_url("http", path).with_arguments(&["--limit-rate", "4M"]).run()
}
