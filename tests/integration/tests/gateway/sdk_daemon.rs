//! envd, the daemon of E2B's SDKs in a sandbox, which checks access itself.

use policy_testbed::{
    named_internet::raw_http::RawHttpResponse,
    public_url::{
        self, GATEWAY_CONFIG, SERVICE_PORT, TOKEN_NAME, raw_http2::Http2Outcome,
        recording_service::RecordingService,
    },
    testbed::{OrFail as _, TestSandbox, Testbed},
};
use serde_json::{Value, json};

use crate::{gateway_sandbox, private_network};

/// The daemon's port.
const ENVD_PORT: u16 = 49983;

/// Paths that are reserved for the operator.
const OPERATOR_PATHS: [&str; 7] =
    ["/init", "/collapse", "/freeze", "/unfreeze", "/fsfreeze", "/fsthaw", "/upgrade"];

/// A sandbox with a recording service on the daemon's port.
#[track_caller]
fn sandbox_with_daemon(network: Value) -> (TestSandbox, RecordingService) {
    let sandbox = gateway_sandbox(network);
    let daemon =
        RecordingService::start(&sandbox.namespace, ENVD_PORT).or_fail("starting the daemon");
    (sandbox, daemon)
}

/// Sends a request to a port of a sandbox that need not exist.
#[track_caller]
fn request_host(stage: &Testbed, host: &str, line: &str, fields: &str) -> RawHttpResponse {
    stage
        .connect_to_gateway()
        .send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
        .read_response()
}

#[test]
fn token_and_host_mask_do_not_apply_to_it() {
    let network = json!({ "allowPublicTraffic": false, "maskRequestHost": "localhost:${PORT}" });
    let (sandbox, daemon) = sandbox_with_daemon(network);
    let _service =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("a service beside it");
    let host = sandbox.public_host(ENVD_PORT);
    let reply = request_host(&sandbox.testbed, &host, "POST /process.Process/Start", "");
    assert_eq!(reply.status, 200, "{reply:?}");
    let expected = format!("host: {host}");
    assert!(daemon.only_request().iter().any(|line| line.to_lowercase() == expected), "{reply:?}");
    request_host(&sandbox.testbed, &sandbox.public_host(SERVICE_PORT), "GET /", "")
        .assert_from_gateway(403);
    let token = format!("{TOKEN_NAME}: {}\r\n", sandbox.traffic_token());
    let masked =
        request_host(&sandbox.testbed, &sandbox.public_host(SERVICE_PORT), "GET /", &token);
    assert!(masked.body.to_lowercase().contains("host: localhost:3000\r\n"), "{masked:?}");
    request_host(&sandbox.testbed, &host, "GET /", &token);
    assert!(
        !daemon.received_text().to_lowercase().contains(TOKEN_NAME),
        "{}",
        daemon.received_text()
    );
}

#[test]
fn operator_paths_are_not_reachable() {
    let (sandbox, daemon) = sandbox_with_daemon(json!({}));
    let stage = &sandbox.testbed;
    let (known, unknown) =
        (sandbox.public_host(ENVD_PORT), public_url::public_host("nobody", ENVD_PORT));
    let spellings = [
        "/INIT",
        "/init/",
        "/init?x=y",
        "//init",
        "/%69nit",
        "/%2569nit",
        "/%2finit",
        "/init%2F",
        "/./init",
        "/x/../init",
        "/x%2f%2e%2e%2finit",
        "/init//..",
        "/init;a=b",
        "/x\\..\\init",
        "/init%00",
        "/init#x",
    ];
    for path in OPERATOR_PATHS.iter().chain(&spellings) {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "FREEZE"] {
            let line = format!("{method} {path}");
            let [one, other] = [&known, &unknown].map(|host| request_host(stage, host, &line, ""));
            assert_eq!((one.status, other.status), (404, 404), "{line}: {one:?} {other:?}");
            assert_eq!(one.page_json()["message"], other.page_json()["message"], "{line}");
        }
    }
    let absolute = format!("POST http://{known}/init");
    request_host(stage, &known, &absolute, "").assert_from_gateway(404);
    let named = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: {ENVD_PORT}\r\n", sandbox.id);
    request_host(stage, "localhost", "POST /init", &named).assert_from_gateway(404);
    let older = format!("{ENVD_PORT}-{}-any.{}", sandbox.id, public_url::GATEWAY_DOMAIN);
    request_host(stage, &older, "POST /init", "").assert_from_gateway(404);
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", &*known)];
    for path in ["/init", "//init", "/x/../%69nit/"] {
        let outcome =
            stage.connect_http2().request(&[&fields[..], &[(":path", path)]].concat(), "");
        assert_eq!(outcome, Http2Outcome::Answered(404), "{path}");
    }
    assert_eq!(daemon.connection_count(), 0);
    for path in ["/health", "/initial", "/init/x", "/files/init", "/files?path=/init"] {
        let reply = request_host(stage, &known, &format!("GET {path}"), "");
        assert!(reply.body.starts_with(&format!("GET {path} ")), "{path}: {reply:?}");
    }
}

#[test]
fn these_paths_are_ordinary_elsewhere() {
    let (sandbox, _daemon) = sandbox_with_daemon(json!({}));
    let service = RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("a service");
    for path in OPERATOR_PATHS {
        let reply = request_host(
            &sandbox.testbed,
            &sandbox.public_host(SERVICE_PORT),
            &format!("POST {path}"),
            "",
        );
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
    }
    assert_eq!(service.request_heads().len(), OPERATOR_PATHS.len());
}

#[test]
fn the_operator_configures_its_port() {
    for (port, [at_usual, at_other]) in [(0, [403, 403]), (4000, [403, 200])] {
        let stage = Testbed::with_names(&format!("{GATEWAY_CONFIG}envd_port = {port}\n"));
        let sandbox = stage.add_sandbox();
        sandbox.apply_network(private_network());
        let _usual =
            RecordingService::start(&sandbox.namespace, ENVD_PORT).or_fail("one at the usual port");
        let _other = RecordingService::start(&sandbox.namespace, 4000).or_fail("one at another");
        let status =
            |port, line: &str| request_host(&stage, &sandbox.public_host(port), line, "").status;
        assert_eq!(status(ENVD_PORT, "GET /"), at_usual, "{port}");
        assert_eq!(status(4000, "GET /"), at_other, "{port}");
        assert_eq!(status(4000, "POST /init"), if port == 0 { 403 } else { 404 });
    }
}
