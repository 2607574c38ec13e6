//! The request that a service receives, and the response that a client receives.

use policy_testbed::{
    network::host_router::INTERNET_UPLINK_V4,
    public_url::{SERVICE_PORT, manual_service::SandboxWebsite},
    testbed::{OrFail as _, TestSandbox},
};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use crate::{gateway_sandbox, manual_sandbox, recording_sandbox};

/// The values of a field in the lines of a request.
fn field_values(lines: &[String], name: &str) -> Vec<String> {
    let fields = lines.iter().filter_map(|line| line.split_once(": "));
    let fields = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.to_owned()).collect()
}

/// Sends a request and returns its lines as the service receives them.
#[track_caller]
fn lines_at_service(sandbox: &TestSandbox, line: &str, fields: &str) -> Vec<String> {
    let reply = sandbox.send_public_request(line, &format!("{fields}\r\n")).read_response();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body.lines().map(str::to_owned).collect()
}

#[test]
fn the_client_is_named_and_what_it_claims_is_dropped() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
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
            let fetched = sandbox
                .curl_public_url(scheme, "/")
                .with_arguments(&claims)
                .with_arguments(&[version])
                .run();
            assert_eq!(fetched.status, 200, "{fetched:?}");
            let lines: Vec<String> = fetched.text().lines().map(str::to_owned).collect();
            assert_eq!(field_values(&lines, "x-forwarded-for"), [INTERNET_UPLINK_V4.to_string()]);
            assert_eq!(
                field_values(&lines, "x-forwarded-host"),
                [sandbox.public_host(SERVICE_PORT)]
            );
            assert_eq!(field_values(&lines, "x-forwarded-proto"), [scheme]);
            assert_eq!(field_values(&lines, "host"), [sandbox.public_host(SERVICE_PORT)]);
        }
    }
    let text = recorder.received_text();
    let forged = ["1.2.3.4", "5.6.7.8", "evil", "gopher"].iter().find(|it| text.contains(**it));
    assert_eq!(forged, None, "{text}");
}

#[test]
fn the_service_may_be_shown_another_host() {
    let sandbox = gateway_sandbox(json!({}));
    let _recorder = policy_testbed::public_url::recording_service::RecordingService::start(
        &sandbox.namespace,
        SERVICE_PORT,
    );
    for (mask, host) in [
        ("localhost:${PORT}", [format!("localhost:{SERVICE_PORT}")]),
        ("app-${PORT}.internal", [format!("app-{SERVICE_PORT}.internal")]),
        ("fixed.example", ["fixed.example".to_owned()]),
    ] {
        sandbox.apply_network(json!({ "maskRequestHost": mask }));
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let fetched = sandbox.curl_public_url("http", "/").with_arguments(&[version]).run();
            let lines: Vec<String> = fetched.text().lines().map(str::to_owned).collect();
            assert_eq!(field_values(&lines, "host"), host, "{fetched:?}");
            assert_eq!(
                field_values(&lines, "x-forwarded-host"),
                [sandbox.public_host(SERVICE_PORT)]
            );
        }
    }
    sandbox.apply_network(json!({}));
    assert_eq!(
        field_values(&lines_at_service(&sandbox, "GET /", ""), "host"),
        [sandbox.public_host(SERVICE_PORT)]
    );
}

#[test]
fn fields_for_one_hop_go_no_further() {
    let (sandbox, _recorder) = recording_sandbox(json!({}));
    let fields = "Connection: keep-alive, X-Hop, Host, Content-Length\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Connection: keep-alive\r\nX-Hop: 1\r\nX-End: 2\r\nUpgrade: h2c\r\n\
                  HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    let lines = lines_at_service(&sandbox, "GET /", fields);
    for dropped in ["x-hop", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(field_values(&lines, dropped), [""; 0], "{dropped}: {lines:?}");
    }
    assert_eq!(field_values(&lines, "x-end"), ["2"]);
    assert_eq!(field_values(&lines, "host"), [sandbox.public_host(SERVICE_PORT)]);
}

#[test]
fn methods_and_targets_arrive_as_they_were_sent() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let targets =
        ["/", "//a//b", "/a/../b/./c", "/a;b=c?x=%2F%00&y=+&&z", "/?", "/%ff~!$&'()*+,:@"];
    for target in targets {
        let lines = lines_at_service(&sandbox, &format!("GET {target}"), "");
        assert_eq!(lines[0], format!("GET {target} HTTP/1.1"));
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "X-odd_1"] {
        let lines = lines_at_service(&sandbox, &format!("{method} /"), "");
        assert_eq!(lines[0], format!("{method} / HTTP/1.1"));
    }
    let lines = lines_at_service(&sandbox, "OPTIONS *", "");
    assert_eq!(lines[0], "OPTIONS * HTTP/1.1");
    let head = sandbox.curl_public_url("http", "/head").with_arguments(&["--head"]).run();
    assert_eq!((head.status, head.exit_code), (200, 0), "{head:?}");
    assert!(recorder.request_heads().iter().any(|head| head.starts_with("HEAD /head ")));
}

#[test]
fn http_1_0_clients_are_served() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let fetched = sandbox.curl_public_url("http", "/old").with_arguments(&["--http1.0"]).run();
    assert_eq!((fetched.status, fetched.exit_code), (200, 0), "{fetched:?}");
    assert_eq!(recorder.only_request()[0], "GET /old HTTP/1.1");
}

#[test]
fn answers_arrive_as_they_were_given() {
    let (sandbox, service) = manual_sandbox(json!({}));
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
                let curl =
                    sandbox.curl_public_url("http", "/").with_arguments(&[version, "--include"]);
                let client = scope.spawn(move || curl.run());
                let mut served = service.accept();
                served.read_head();
                let end = answer.rfind("\r\n\r\n").unwrap_or(0) + 2;
                let begin = answer[..end - 2].rfind("HTTP/1").unwrap_or(0);
                let line = begin + answer[begin..].find("\r\n").unwrap_or(0) + 2;
                served.send(&format!("{}{fields}{}", &answer[..line], &answer[line..]));
                drop(served);
                client.join().unwrap_or_else(|_| panic!("curl's thread panicked"))
            });
            let text = fetched.text().to_lowercase();
            assert_eq!((fetched.status, fetched.exit_code), (status, 0), "{answer:?}: {fetched:?}");
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
    let sandbox = gateway_sandbox(json!({ "httpsPorts": [8443] }));
    let names = sandbox.testbed.named_internet();
    let address = sandbox.addressing.v4().into();
    let tls = names.authority.server_config(address).or_fail("a certificate");
    let tls = TlsAcceptor::from(std::sync::Arc::new(tls));
    let _tls =
        SandboxWebsite::start(&sandbox.namespace, 8443, Some(tls)).or_fail("a site with TLS");
    let _plain =
        SandboxWebsite::start(&sandbox.namespace, SERVICE_PORT, None).or_fail("a site without");
    for scheme in ["http", "https"] {
        for port in [8443, SERVICE_PORT] {
            let url = format!("{scheme}://{}/", sandbox.public_host(port));
            let fetched = sandbox.testbed.curl_from_internet(&url).run();
            assert_eq!(fetched.page_json()["port"], port, "{fetched:?}");
        }
    }
    // The gateway uses TLS only for the configured ports.
    sandbox.apply_network(json!({ "httpsPorts": [SERVICE_PORT] }));
    for port in [8443, SERVICE_PORT] {
        let fetched = sandbox
            .testbed
            .curl_from_internet(&format!("http://{}/", sandbox.public_host(port)))
            .run();
        fetched.assert_refused(502, "");
        assert_eq!(fetched.page_json()["port"], port, "{fetched:?}");
    }
}
