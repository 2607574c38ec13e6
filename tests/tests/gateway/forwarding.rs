//! What a service sees of a request, and a client of an answer.

use policy_tests::{
    gateway::{PORT, service::Website},
    stage::{Guest, OrFail as _},
    world::host::INTERNET_V4,
};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use crate::{played, recorded, sandbox};

/// The values of a field among the lines of a request.
fn values(lines: &[String], name: &str) -> Vec<String> {
    let fields = lines.iter().filter_map(|line| line.split_once(": "));
    let fields = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.to_owned()).collect()
}

/// Sends a request, and returns its lines as the service sees them.
#[track_caller]
fn seen(sandbox: &Guest, line: &str, fields: &str) -> Vec<String> {
    let reply = sandbox.ask(line, &format!("{fields}\r\n")).reply();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body.lines().map(str::to_owned).collect()
}

#[test]
fn the_client_is_named_and_what_it_claims_is_dropped() {
    let (sandbox, recorder) = recorded(json!({}));
    let claims = [
        "X-Forwarded-For: 1.2.3.4",
        "x-forwarded-for: 5.6.7.8",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: gopher",
        "Forwarded: for=1.2.3.4",
        "X-Real-IP: 1.2.3.4",
        "X_Forwarded_For: 1.2.3.4",
        "X_Real_IP: 1.2.3.4",
        "True-Client-IP: 1.2.3.4",
        "CF-Connecting-IP: 1.2.3.4",
        "X-Client-IP: 1.2.3.4",
        "X-Cluster-Client-IP: 1.2.3.4",
        "Fastly-Client-IP: 1.2.3.4",
        "X-Original-Forwarded-For: 1.2.3.4",
    ];
    let claims: Vec<&str> = claims.into_iter().flat_map(|claim| ["-H", claim]).collect();
    for scheme in ["http", "https"] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let fetched = sandbox.fetch(scheme, "/").with(&claims).with(&[version]).run();
            assert_eq!(fetched.status, 200, "{fetched:?}");
            let lines: Vec<String> = fetched.text().lines().map(str::to_owned).collect();
            assert_eq!(values(&lines, "x-forwarded-for"), [INTERNET_V4.to_string()]);
            assert_eq!(values(&lines, "x-forwarded-host"), [sandbox.host(PORT)]);
            assert_eq!(values(&lines, "x-forwarded-proto"), [scheme]);
            assert_eq!(values(&lines, "host"), [sandbox.host(PORT)]);
        }
    }
    let text = recorder.text();
    let forged = ["1.2.3.4", "5.6.7.8", "evil", "gopher"].iter().find(|it| text.contains(**it));
    assert_eq!(forged, None, "{text}");
}

#[test]
fn the_service_may_be_shown_another_host() {
    let sandbox = sandbox(json!({}));
    let _recorder = policy_tests::gateway::recorder::Recorder::start(&sandbox.inside, PORT);
    for (mask, host) in [
        ("localhost:${PORT}", [format!("localhost:{PORT}")]),
        ("app-${PORT}.internal", [format!("app-{PORT}.internal")]),
        ("fixed.example", ["fixed.example".to_owned()]),
    ] {
        sandbox.network(json!({ "maskRequestHost": mask }));
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let fetched = sandbox.fetch("http", "/").with(&[version]).run();
            let lines: Vec<String> = fetched.text().lines().map(str::to_owned).collect();
            assert_eq!(values(&lines, "host"), host, "{fetched:?}");
            assert_eq!(values(&lines, "x-forwarded-host"), [sandbox.host(PORT)]);
        }
    }
    sandbox.network(json!({}));
    assert_eq!(values(&seen(&sandbox, "GET /", ""), "host"), [sandbox.host(PORT)]);
}

#[test]
fn fields_for_one_hop_go_no_further() {
    let (sandbox, _recorder) = recorded(json!({}));
    let fields = "Connection: keep-alive, X-Hop, Host, Content-Length\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Connection: keep-alive\r\nX-Hop: 1\r\nX-End: 2\r\nUpgrade: h2c\r\n\
                  HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    let lines = seen(&sandbox, "GET /", fields);
    for dropped in ["x-hop", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(values(&lines, dropped), [""; 0], "{dropped}: {lines:?}");
    }
    assert_eq!(values(&lines, "x-end"), ["2"]);
    assert_eq!(values(&lines, "host"), [sandbox.host(PORT)]);
}

#[test]
fn methods_and_targets_arrive_as_they_were_sent() {
    let (sandbox, recorder) = recorded(json!({}));
    let targets =
        ["/", "//a//b", "/a/../b/./c", "/a;b=c?x=%2F%00&y=+&&z", "/?", "/%ff~!$&'()*+,:@"];
    for target in targets {
        let lines = seen(&sandbox, &format!("GET {target}"), "");
        assert_eq!(lines[0], format!("GET {target} HTTP/1.1"));
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "X-odd_1"] {
        let lines = seen(&sandbox, &format!("{method} /"), "");
        assert_eq!(lines[0], format!("{method} / HTTP/1.1"));
    }
    let lines = seen(&sandbox, "OPTIONS *", "");
    assert_eq!(lines[0], "OPTIONS * HTTP/1.1");
    let head = sandbox.fetch("http", "/head").with(&["--head"]).run();
    assert_eq!((head.status, head.exit), (200, 0), "{head:?}");
    assert!(recorder.heads().iter().any(|head| head.starts_with("HEAD /head ")));
}

#[test]
fn http_1_0_clients_are_served() {
    let (sandbox, recorder) = recorded(json!({}));
    let fetched = sandbox.fetch("http", "/old").with(&["--http1.0"]).run();
    assert_eq!((fetched.status, fetched.exit), (200, 0), "{fetched:?}");
    assert_eq!(recorder.only()[0], "GET /old HTTP/1.1");
}

#[test]
fn answers_arrive_as_they_were_given() {
    let (sandbox, service) = played(json!({}));
    let answers = [
        ("HTTP/1.1 404 Gone Fishing\r\nContent-Length: 3\r\n\r\nno!", 404, "no!"),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", 500, ""),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://localhost:3000/\r\nContent-Length: 0\r\n\r\n",
            302,
            "",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, "abc"),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", 200, "until the end"),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.",
            200,
            ".",
        ),
    ];
    let fields = "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Odd: \u{e9}\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n";
    for (answer, status, body) in answers {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let fetched = std::thread::scope(|scope| {
                let curl = sandbox.fetch("http", "/").with(&[version, "--include"]);
                let client = scope.spawn(move || curl.run());
                let mut served = service.accept();
                served.head();
                let end = answer.rfind("\r\n\r\n").unwrap_or(0) + 2;
                let begin = answer[..end - 2].rfind("HTTP/1").unwrap_or(0);
                let line = begin + answer[begin..].find("\r\n").unwrap_or(0) + 2;
                served.say(&format!("{}{fields}{}", &answer[..line], &answer[line..]));
                drop(served);
                client.join().unwrap_or_else(|_| panic!("curl's thread panicked"))
            });
            let text = fetched.text().to_lowercase();
            assert_eq!((fetched.status, fetched.exit), (status, 0), "{answer:?}: {fetched:?}");
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{answer:?}: {text:?}");
            let (one, other) = (text.find("set-cookie: a=1"), text.find("set-cookie: b=2"));
            assert!(one.is_some() && one < other, "{text}");
            assert!(!text.contains("x-hop") && text.contains("x-odd"), "{text}");
            let location = text.contains("location: http://localhost:3000/");
            assert_eq!(location, status == 302, "{text}");
        }
    }
}

#[test]
fn a_service_may_speak_tls() {
    let sandbox = sandbox(json!({ "httpsPorts": [8443] }));
    let names = sandbox.stage.names();
    let address = sandbox.identity.v4().into();
    let tls = names.authority.server(address).or_fail("a certificate");
    let tls = TlsAcceptor::from(std::sync::Arc::new(tls));
    let _tls = Website::start(&sandbox.inside, 8443, Some(tls)).or_fail("a site with TLS");
    let _plain = Website::start(&sandbox.inside, PORT, None).or_fail("a site without");
    for scheme in ["http", "https"] {
        for port in [8443, PORT] {
            let url = format!("{scheme}://{}/", sandbox.host(port));
            let fetched = sandbox.stage.visitor(&url).run();
            assert_eq!(fetched.page()["port"], port, "{fetched:?}");
        }
    }
    // TLS is spoken where it was said to be, and nowhere else.
    sandbox.network(json!({ "httpsPorts": [PORT] }));
    for port in [8443, PORT] {
        let fetched = sandbox.stage.visitor(&format!("http://{}/", sandbox.host(port))).run();
        fetched.is_refused(502, "");
        assert_eq!(fetched.page()["port"], port, "{fetched:?}");
    }
}
