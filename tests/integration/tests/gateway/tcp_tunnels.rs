//! Tunnels of TCP into a sandbox by CONNECT.

use policy_testbed::{
    public_url::{
        GATEWAY_CONFIG, SERVICE_PORT, TOKEN_NAME, http_address, manual_service::ManualService,
        recording_service::RecordingService,
    },
    testbed::{OrFail as _, SharedTestbed, TestSandbox},
};
use serde_json::{Value, json};

use crate::private_network;

static TUNNEL_TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\nhttps = \"[::]:443\"\n\
     tcp_tunnels = true\n",
);

#[track_caller]
fn tunnel_sandbox(network: Value) -> TestSandbox {
    let sandbox = TUNNEL_TESTBED.add_sandbox();
    sandbox.apply_network(network);
    sandbox
}

/// The head of a request for a tunnel, with these fields.
fn connect_text(sandbox: &TestSandbox, fields: &str) -> String {
    format!("CONNECT {}:22 HTTP/1.1\r\n{fields}\r\n", sandbox.public_host(SERVICE_PORT))
}

fn token_field(sandbox: &TestSandbox) -> String {
    format!("{TOKEN_NAME}: {}\r\n", sandbox.traffic_token())
}

#[test]
fn bytes_pass_in_both_directions_until_a_side_ends() {
    // Services that speak first, as SSH's, and clients that speak before the answer.
    for early in ["", "early "] {
        let sandbox = tunnel_sandbox(private_network());
        let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
        let mut talk = sandbox.testbed.connect_to_gateway();
        talk.send(format!("{}{early}", connect_text(&sandbox, &token_field(&sandbox))));
        let mut served = service.accept();
        served.send("SSH-2.0-service\r\n");
        talk.read_until("SSH-2.0-service\r\n");
        talk.send("\0not HTTP\r\n\r\n");
        assert_eq!(served.read_until("HTTP\r\n\r\n"), format!("{early}\0not HTTP\r\n\r\n"));
        drop(talk);
        assert_eq!(served.read_to_close(), "");
    }
}

#[test]
fn curl_uses_it_as_a_proxy() {
    let sandbox = tunnel_sandbox(json!({}));
    let recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    let url = format!("http://{}/inside", sandbox.public_host(SERVICE_PORT));
    let proxy = format!("http://{}", http_address());
    let fetch = |password: &str| {
        let user = format!("anybody:{password}");
        let arguments =
            ["--noproxy", "", "--proxytunnel", "--proxy", &proxy, "--proxy-user", &user];
        let curl = sandbox.testbed.curl_from_internet(&url).with_arguments(&arguments);
        // It waits for the challenge before it sends the password.
        curl.with_arguments(&["--proxy-anyauth"]).run()
    };
    let fetched = fetch(&sandbox.traffic_token());
    assert_eq!(fetched.status, 200, "{fetched:?}");
    let heads = recorder.request_heads();
    assert!(heads[0].starts_with("GET /inside HTTP/1.1\r\n"), "{heads:?}");
    assert!(!recorder.received_text().to_lowercase().contains("x-forwarded"), "it is a tunnel");
    let refused = fetch("wrong");
    assert!(refused.stderr.contains("407"), "{refused:?}");
    assert_eq!(recorder.connection_count(), 1);
}

#[test]
fn without_the_token_nothing_is_connected_also_to_public_sandboxes() {
    for network in [json!({}), private_network()] {
        let sandbox = tunnel_sandbox(network);
        let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
        let cookie = format!("Cookie: {TOKEN_NAME}={}\r\n", sandbox.traffic_token());
        let other = tunnel_sandbox(json!({}));
        let wrong = token_field(&other);
        for fields in ["", "Proxy-Authorization: Basic eDp3cm9uZw==\r\n", &cookie, &wrong] {
            let mut talk = sandbox.testbed.connect_to_gateway();
            let reply = talk.send(connect_text(&sandbox, fields)).read_response();
            reply.assert_from_gateway(407);
        }
        assert!(service.has_no_pending_connection());
    }
}

#[test]
fn a_password_for_the_gateway_stays_there() {
    for network in [json!({}), private_network()] {
        let sandbox = tunnel_sandbox(network);
        let recorder =
            RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
        let fields =
            format!("{}Proxy-Authorization: Basic eDp0MGtlbg==\r\n\r\n", token_field(&sandbox));
        let reply = sandbox.send_public_request("GET /", &fields).read_response();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!recorder.received_text().to_lowercase().contains("proxy-auth"));
    }
}

#[test]
fn the_paths_of_the_operator_are_not_reached_through_a_tunnel() {
    let sandbox = tunnel_sandbox(json!({}));
    let daemon = ManualService::listen(&sandbox.namespace, 49983).or_fail("listening");
    let connect = format!("CONNECT {}:80 HTTP/1.1\r\n", sandbox.public_host(49983));
    let mut talk = sandbox.testbed.connect_to_gateway();
    let request = format!("{connect}{}\r\n", token_field(&sandbox));
    talk.send(request).read_response().assert_from_gateway(404);
    assert!(daemon.has_no_pending_connection());
}

#[test]
fn what_is_no_tunnel_is_refused() {
    let sandbox = tunnel_sandbox(json!({}));
    let token = token_field(&sandbox);
    let host = sandbox.public_host(SERVICE_PORT);
    for (line, status) in [
        ("CONNECT 1.1.1.1:443".to_owned(), 400),
        ("CONNECT localhost:22".to_owned(), 400),
        ("CONNECT fault:2".to_owned(), 400),
        (format!("CONNECT {host}"), 400),
        (format!("CONNECT http://{host}:22/"), 400),
        (format!("CONNECT {}:22", sandbox.public_host(9)), 502),
    ] {
        let mut talk = sandbox.testbed.connect_to_gateway();
        let reply = talk.send(format!("{line} HTTP/1.1\r\n{token}\r\n")).read_response();
        reply.assert_from_gateway(status);
    }
}

#[test]
fn a_tunnel_ends_when_the_sandbox_admits_others() {
    let sandbox = tunnel_sandbox(json!({}));
    let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
    let mut talk = sandbox.testbed.connect_to_gateway();
    talk.send(connect_text(&sandbox, &token_field(&sandbox)));
    let mut served = service.accept();
    served.send("hello\n");
    talk.read_until("hello\n");
    sandbox.apply_network(private_network());
    talk.read_to_close();
}

#[test]
fn it_is_off_by_default() {
    assert!(!GATEWAY_CONFIG.contains("tcp_tunnels"));
    let sandbox = crate::gateway_sandbox(json!({}));
    let mut talk = sandbox.testbed.connect_to_gateway();
    let reply = talk.send(connect_text(&sandbox, &token_field(&sandbox))).read_response();
    reply.assert_from_gateway(400);
}
