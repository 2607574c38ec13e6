//! HTTP/2 from the client, HTTP/1.1 to the service.

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy_testbed::{
    probe,
    public_url::{
        self, SERVICE_PORT, raw_http2::Http2Outcome, recording_service::RecordingService,
    },
    testbed::{OrFail as _, TestSandbox},
};
use serde_json::json;
use tokio::{net::TcpStream, runtime::Runtime};

use crate::{manual_sandbox, recording_sandbox, website_sandbox};

#[test]
fn the_version_is_the_clients_choice_and_the_service_sees_http_1_1() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    for (scheme, option, version) in [
        ("http", "--http1.1", "1.1"),
        ("http", "--http2", "1.1"),
        ("http", "--http2-prior-knowledge", "2"),
        ("https", "--http1.1", "1.1"),
        ("https", "--http2", "2"),
        ("https", "--no-alpn", "1.1"),
        ("https", "--http2-prior-knowledge", "2"),
    ] {
        let fetched = sandbox.curl_public_url(scheme, "/").with_arguments(&[option]).run();
        let seen = (fetched.status, &*fetched.version);
        assert_eq!(seen, (200, version), "{scheme} {option}: {fetched:?}");
        assert!(fetched.text().starts_with("GET / HTTP/1.1\r\n"), "{}", fetched.text());
    }
    assert_eq!(recorder.request_heads().len(), 7);
}

pub(crate) type Http2RequestSender = http2::SendRequest<Empty<Bytes>>;

/// A connection with prior knowledge. The caller must keep the runtime.
#[track_caller]
pub(crate) fn connect_http2_client(sandbox: &TestSandbox) -> (Runtime, Http2RequestSender) {
    let runtime = Runtime::new().or_fail("a runtime");
    let stream = probe::connect(&sandbox.testbed.network.internet, public_url::http_address());
    let stream = stream.or_fail("connecting");
    stream.set_nonblocking(true).or_fail("not waiting");
    let sender = runtime.block_on(async {
        let stream = TokioIo::new(TcpStream::from_std(stream).or_fail("a stream"));
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.or_fail("shaking hands");
        // Errors of the connection also appear as errors of its requests.
        tokio::spawn(connection);
        sender
    });
    (runtime, sender)
}

pub(crate) fn http2_request(sandbox: &TestSandbox, path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://{}{path}", sandbox.public_host(SERVICE_PORT));
    Request::get(uri).body(Empty::new()).or_fail("a request")
}

#[test]
fn many_requests_share_a_connection_and_do_not_wait_for_each_other() {
    let (sandbox, _website) = website_sandbox(json!({}));
    let (runtime, sender) = connect_http2_client(&sandbox);
    runtime.block_on(async {
        let mut stuck = sender.clone();
        let stuck =
            stuck.send_request(http2_request(&sandbox, "/never")).await.or_fail("the stuck one");
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100 {
            let (mut sender, request) =
                (sender.clone(), http2_request(&sandbox, &format!("/{number}")));
            tasks.spawn(async move {
                let answer = sender.send_request(request).await.or_fail("an answer");
                let body = answer.into_body().collect().await.or_fail("a body").to_bytes();
                let page: serde_json::Value = serde_json::from_slice(&body).or_fail("a page");
                assert_eq!(page["target"], format!("/{number}"));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.or_fail("a request among many");
        }
        drop(stuck);
    });
}

#[test]
fn a_body_that_nobody_reads_does_not_hold_up_others() {
    let (sandbox, _website) = website_sandbox(json!({}));
    let (runtime, mut sender) = connect_http2_client(&sandbox);
    runtime.block_on(async {
        let large = http2_request(&sandbox, "/bytes/50000000");
        let unread = sender.send_request(large).await.or_fail("the large one");
        let answer =
            sender.send_request(http2_request(&sandbox, "/")).await.or_fail("the small one");
        answer.into_body().collect().await.or_fail("its body");
        let body = unread.into_body().collect().await.or_fail("the large body").to_bytes();
        assert_eq!(body.len(), 50_000_000);
    });
}

#[test]
fn heads_may_be_as_long_as_in_http_1() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let (runtime, mut sender) = connect_http2_client(&sandbox);
    let mut long = http2_request(&sandbox, "/");
    for number in 0..6 {
        let name = format!("x-long-{number}");
        let name: hyper::header::HeaderName = name.parse().or_fail("a name");
        long.headers_mut().insert(name, "y".repeat(10_000).parse().or_fail("a value"));
    }
    let answer = runtime.block_on(sender.send_request(long)).or_fail("an answer");
    assert_eq!(answer.status(), 200);
    assert!(recorder.received_text().len() > 60_000);
}

#[test]
fn a_request_that_the_client_gives_up_ends_at_the_service() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let (runtime, mut sender) = connect_http2_client(&sandbox);
    let asking = runtime.spawn(sender.send_request(http2_request(&sandbox, "/")));
    let mut served = service.accept();
    served.read_head();
    asking.abort();
    assert_eq!(served.read_to_close(), "");
}

#[test]
fn cookies_and_host_are_put_together() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let host = sandbox.public_host(SERVICE_PORT);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", &*host),
        (":path", "/"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
    ];
    assert_eq!(sandbox.testbed.connect_http2().request(&fields, ""), Http2Outcome::Answered(200));
    let lines = recorder.only_request();
    let named =
        |name: &str| lines.iter().filter(|line| line.to_lowercase().starts_with(name)).count();
    assert!(lines.iter().any(|line| line.eq_ignore_ascii_case("cookie: a=1; b=2")), "{lines:?}");
    assert_eq!((named("cookie:"), named("host:")), (1, 1), "{lines:?}");
}

#[test]
fn one_connection_may_ask_for_several_sandboxes() {
    let (one, first) = recording_sandbox(json!({}));
    let (other, second) = recording_sandbox(json!({}));
    let (runtime, mut sender) = connect_http2_client(&one);
    for sandbox in [&one, &other, &one] {
        let answer = runtime.block_on(sender.send_request(http2_request(sandbox, "/")));
        assert_eq!(answer.or_fail("an answer").status(), 200);
    }
    assert_eq!([&first, &second].map(|it: &RecordingService| it.request_heads().len()), [2, 1]);
}
