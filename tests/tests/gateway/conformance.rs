//! Requests that two readers could take for different ones. The service in the sandbox is no HTTP
//! library and keeps all that it gets: whatever the client sends, no second request is among it.

use policy_tests::{
    gateway::{PORT, recorder::Recorder},
    names::raw::Talk,
    stage::Guest,
};
use serde_json::json;

use crate::{played, recorded};

/// What nobody may take for a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// A sandbox under attack.
struct Scene {
    sandbox: Guest,
    recorder: Recorder,
}

impl Scene {
    #[track_caller]
    fn set() -> Self {
        let (sandbox, recorder) = recorded(json!({}));
        Self { sandbox, recorder }
    }

    /// Sends bytes that are to be refused: the answer is 400, or none; the connection ends; and no
    /// request comes to the service.
    #[track_caller]
    fn refuses(&self, attack: &str) {
        let before = self.recorder.heads().len();
        let mut talk = self.sandbox.stage.knock();
        // The end of what is sent, for those who wait for more of a body.
        talk.say(attack).stream().shutdown(std::net::Shutdown::Write).unwrap_or_default();
        let shown: String = attack.chars().take(300).collect();
        let statuses = statuses(&mut talk);
        assert!(matches!(statuses[..], [] | [400]), "{shown:?} is answered with {statuses:?}");
        assert_eq!(self.recorder.heads().len(), before, "{shown:?} comes through");
        self.nothing_lurks(&shown);
    }

    /// No part of an attack has come to the service, and the next request gets its own answer.
    #[track_caller]
    fn nothing_lurks(&self, attack: &str) {
        for _ in 0..2 {
            let canary = format!("GET /canary-{}", self.recorder.heads().len());
            let reply = self.sandbox.ask(&canary, "\r\n").reply();
            assert!(reply.body.starts_with(&canary), "behind {attack:?}: {reply:?}");
        }
        let text = self.recorder.text();
        assert!(!text.contains("smuggled"), "{attack:?}: {text}");
    }

    /// Sends a POST with these lines of fields, and a body.
    #[track_caller]
    fn refuses_post(&self, fields: &str, body: &str) {
        self.refuses(&self.sandbox.request("POST /", &format!("{fields}\r\n\r\n{body}")));
    }
}

/// The statuses of all answers, up to the end.
#[track_caller]
fn statuses(talk: &mut Talk) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Ok(reply) = talk.read_reply() {
        statuses.push(reply.status);
    }
    talk.ending();
    statuses
}

#[test]
fn a_length_has_one_reading() {
    let scene = Scene::set();
    for (one, other) in [("0", "44"), ("44", "0"), ("44", "44"), ("4", "4")] {
        let fields = format!("Content-Length: {one}\r\nContent-Length: {other}");
        scene.refuses_post(&fields, SMUGGLED);
    }
    for length in [
        "0, 44",
        "44, 44",
        "44,",
        "+44",
        "-1",
        "0x2c",
        "4 4",
        "44;",
        "4\u{b}4",
        "",
        "1e1",
        "４",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        scene.refuses_post(&format!("Content-Length: {length}"), SMUGGLED);
    }
}

#[test]
fn a_length_and_chunks_exclude_each_other() {
    let scene = Scene::set();
    let body = format!("0\r\n\r\n{SMUGGLED}");
    for length in ["0", "5", "6", "49"] {
        let (length, chunked) = (format!("Content-Length: {length}"), "Transfer-Encoding: chunked");
        scene.refuses_post(&format!("{length}\r\n{chunked}"), &body);
        scene.refuses_post(&format!("{chunked}\r\n{length}"), &body);
    }
}

#[test]
fn an_encoding_is_chunked_and_nothing_else() {
    let scene = Scene::set();
    let body = format!("0\r\n\r\n{SMUGGLED}");
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
        scene.refuses_post(&format!("Transfer-Encoding: {coding}"), &body);
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
        scene.refuses_post(fields, &body);
    }
    let old = format!("POST / HTTP/1.0\r\nHost: {}\r\n", scene.sandbox.host(PORT));
    scene.refuses(&format!("{old}Transfer-Encoding: chunked\r\n\r\n{body}"));
    scene.refuses(&format!(
        "{old}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    ));
}

#[test]
fn chunks_have_one_reading() {
    let scene = Scene::set();
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
        scene.refuses_post("Transfer-Encoding: chunked", &format!("{body}{SMUGGLED}"));
    }
}

#[test]
fn lines_and_fields_have_one_reading() {
    let scene = Scene::set();
    let good = scene.sandbox.request("GET /", "X: y\r\n\r\n");
    scene.refuses(&format!("{}{SMUGGLED}", good.replace("\r\n", "\n")));
    scene.refuses(&format!("{}{SMUGGLED}", good.replace("\r\n", "\r")));
    scene.refuses(&good.replace("\r\n\r\n", "\n\r\n"));
    scene.refuses(&good.replace("\r\n\r\n", "\r\n\n"));
    for field in [
        "no colon",
        ": no name",
        "X Y: z",
        "X\0: y",
        "X: y\0z",
        "X\u{e9}: y",
        "X(: y",
        " X: y",
        "X: y\u{7f}",
        "X: y\u{1}",
    ] {
        scene.refuses(&scene.sandbox.request("GET /", &format!("{field}\r\n\r\n")));
    }
    for line in [
        "GET",
        "GET ",
        "GET  /",
        " GET /",
        "GET\t/",
        "GET / x",
        "GET /\0",
        "GET /\u{7f}",
        "G\0T /",
        "G(T /",
        "GET\u{b}/",
        "GET /a b",
        "GET nowhere",
    ] {
        scene.refuses(&scene.sandbox.request(line, "\r\n"));
    }
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3",
        "http/1.1",
        "HTTP/1.10",
        "HTTP/11",
        "HTTP/1.1 ",
        "HTTP 1.1",
        "X/1.1",
        "",
    ] {
        scene.refuses(&good.replace("HTTP/1.1", version));
    }
    scene.refuses(&good.replace(" HTTP/1.1", ""));
}

#[test]
fn heads_have_a_limit() {
    let scene = Scene::set();
    let long = "x".repeat(1_000_000);
    scene.refuses(&scene.sandbox.request("GET /", &format!("X: {long}\r\n\r\n")));
    scene.refuses(&scene.sandbox.request(&format!("GET /{long}"), "\r\n"));
    scene.refuses(&scene.sandbox.request("GET /", &format!("{}\r\n", "X: y\r\n".repeat(10_000))));
    scene.refuses(&scene.sandbox.request("GET /", &format!("{long}: y\r\n\r\n")));
    // But not a narrow one.
    let fields = "Cookie: some=cookie\r\n".repeat(50) + &format!("X: {}\r\n\r\n", &long[..30_000]);
    assert_eq!(scene.sandbox.ask("GET /", &fields).reply().status, 200);
}

#[test]
fn a_request_has_one_host() {
    let scene = Scene::set();
    let (host, other) = (scene.sandbox.host(PORT), scene.sandbox.host(PORT + 1));
    let requests = [
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {other}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nhOST: evil\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}, {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost : {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\n {other}\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET http://{other}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {other}\r\n\r\n"),
        format!("GET http://evil.test/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\n\r\n"),
        format!("GET http://user@{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http:///x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ];
    for request in requests {
        refuses_and_may_stay(&scene, &request);
    }
    let absolute = format!("GET http://{host}/absolute HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let reply = scene.sandbox.stage.knock().say(absolute).reply();
    assert!(reply.body.starts_with("GET /absolute HTTP/1.1\r\n"), "{reply:?}");
}

/// Where one request ends is clear with these, so the connection need not end with them.
#[track_caller]
fn refuses_and_may_stay(scene: &Scene, request: &str) {
    let before = scene.recorder.heads().len();
    let reply = scene.sandbox.stage.knock().say(request).reply();
    assert_eq!(reply.status, 400, "{request:?}: {reply:?}");
    assert_eq!(scene.recorder.heads().len(), before, "{request:?}");
    scene.nothing_lurks(request);
}

#[test]
fn the_gateway_is_no_proxy() {
    let scene = Scene::set();
    let host = scene.sandbox.host(PORT);
    for target in [format!("{host}:443"), "1.1.1.1:443".to_owned(), "localhost:22".to_owned()] {
        scene.refuses(&format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n\r\n{SMUGGLED}"));
    }
    for url in ["http://1.1.1.1/", "http://localhost/", "ftp://1.1.1.1/x"] {
        let request = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        refuses_and_may_stay(&scene, &request);
    }
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let first = scene.sandbox.request("GET /first", "\r\n");
    let mut talk = scene.sandbox.stage.knock();
    assert_eq!(talk.say(first).reply().status, 200);
    assert_eq!(statuses(talk.say(preface)), [400]);
}

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
