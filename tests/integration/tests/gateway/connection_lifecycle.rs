//! Connections through the gateway while sandboxes, services and the agent start and stop.

use std::net::{SocketAddr, TcpStream};

use policy_testbed::{
    named_internet::raw_http::RawHttpConnection,
    network::host_router::{HOST_UPLINK_V4, INTERNET_UPLINK_V4},
    probe::{self, ProbeResult},
    public_url::{
        GATEWAY_CONFIG, SERVICE_PORT,
        manual_service::{ManualService, ServiceConnection},
        recording_service::RecordingService,
    },
    test_servers::ECHO_PORT,
    testbed::{OrFail as _, TestSandbox, Testbed, parse_ip},
    wait::{WAIT_LIMIT, eventually},
};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::{manual_sandbox, private_network, recording_sandbox};

const BEGUN_RESPONSE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
const SWITCHING_RESPONSE: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";

/// A connection with an unfinished response, and one that was upgraded to another protocol.
#[track_caller]
fn open_connections(
    sandbox: &TestSandbox,
    service: &ManualService,
) -> [(RawHttpConnection, ServiceConnection); 2] {
    let mut download = sandbox.send_public_request("GET /", "\r\n");
    let mut downloads = service.accept();
    downloads.read_head();
    downloads.send(BEGUN_RESPONSE);
    download.read_until("begun");
    let mut upgraded =
        sandbox.send_public_request("GET /", "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    let mut upgrades = service.accept();
    upgrades.read_head();
    upgrades.send(SWITCHING_RESPONSE);
    assert_eq!(upgraded.read_response().status, 101);
    upgraded.send("hello");
    upgrades.read_until("hello");
    [(download, downloads), (upgraded, upgrades)]
}

/// Asserts that both sides of all connections receive their end.
#[track_caller]
fn assert_all_end(connections: [(RawHttpConnection, ServiceConnection); 2]) {
    for (mut talk, mut served) in connections {
        talk.read_to_close();
        served.read_to_close();
    }
}

#[test]
fn what_goes_through_the_gateway_ends_with_the_sandbox() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let connections = open_connections(&sandbox, &service);
    sandbox.delete();
    assert_all_end(connections);
    let reply = sandbox.send_public_request("GET /", "\r\n").read_response();
    reply.assert_from_gateway(502);
    assert!(reply.page_json().get("port").is_none(), "{reply:?}");
    assert!(service.has_no_pending_connection());
}

#[test]
fn a_kept_connection_ends_with_the_sandbox() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.read_response().status, 204);
    sandbox.delete();
    assert_eq!(served.read_to_close(), "");
    // The new sandbox has its own connections.
    sandbox.apply_network(json!({}));
    talk.send_get(&sandbox.public_host(SERVICE_PORT));
    service.accept().read_head();
}

#[test]
fn what_was_public_ends_when_the_sandbox_turns_private() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let connections = open_connections(&sandbox, &service);
    sandbox.apply_network(private_network());
    assert_all_end(connections);
}

#[test]
fn other_updates_leave_it_alone_and_answers_go_out_under_deny_all() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let [(mut download, mut downloads), (mut upgraded, mut upgrades)] =
        open_connections(&sandbox, &service);
    for network in [json!({ "denyOut": ["0.0.0.0/0"] }), json!({ "allowOut": ["1.1.1.1"] })] {
        sandbox.apply_network(network);
        downloads.send("4\r\nmore\r\n");
        download.read_until("more");
        upgraded.send("question");
        upgrades.read_until("question");
        upgrades.send("answer");
        upgraded.read_until("answer");
    }
    sandbox.apply_config(&json!({ "allowInternetAccess": false }));
    downloads.send("3\r\nend\r\n0\r\n\r\n");
    download.read_until("0\r\n\r\n");
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = downloads;
    served.read_head();
    served.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.read_response().status, 204);
}

#[test]
fn an_exposed_port_does_not_allow_outbound_connections() {
    let (sandbox, service) = manual_sandbox(json!({ "denyOut": ["0.0.0.0/0"] }));
    let [(mut download, mut downloads), _upgraded] = open_connections(&sandbox, &service);
    // The service's port is free for other sockets, except for the established connections.
    drop(service);
    for to in ["8.8.8.8", &INTERNET_UPLINK_V4.to_string()] {
        let seen = probe_from_service_port(&sandbox, (parse_ip(to), ECHO_PORT).into());
        assert_eq!(seen, ProbeResult::Refused, "to {to} from the exposed port");
    }
    downloads.send("3\r\nend\r\n0\r\n\r\n");
    download.read_until("0\r\n\r\n");
}

/// The result of a connection from the port of the service.
#[track_caller]
fn probe_from_service_port(sandbox: &TestSandbox, to: SocketAddr) -> ProbeResult {
    let _inside = sandbox.namespace.enter().or_fail("entering the sandbox");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).or_fail("a socket");
    socket.set_reuse_address(true).or_fail("using an address again");
    let from = SocketAddr::from((sandbox.addressing.v4(), SERVICE_PORT));
    // A program that another test is starting may still hold the inherited descriptor until its
    // exec.
    let taken = eventually("the exposed port is free", || socket.bind(&from.into()).ok());
    taken.or_fail("taking the exposed port");
    match socket.connect_timeout(&to.into(), *WAIT_LIMIT) {
        Ok(()) => ProbeResult::Answered,
        Err(error) => probe::result_from_error(&error),
    }
}

#[test]
fn a_service_may_start_again_and_move() {
    let sandbox = crate::gateway_sandbox(json!({}));
    let asked = || {
        let post = sandbox
            .send_public_request("POST /", "Content-Length: 2\r\n\r\nhi")
            .read_response()
            .status;
        [sandbox.send_public_request("GET /", "\r\n").read_response().status, post]
    };
    assert_eq!(asked(), [502, 502]);
    for _ in 0..3 {
        let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
        let mut talk = sandbox.send_public_request("GET /", "\r\n");
        let mut served = service.accept();
        served.read_head();
        served.send("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(talk.read_response().status, 204);
        let stream: TcpStream = served.stream;
        drop((stream, service));
        // The pooled connection is gone. An unanswered request may be retried if it is safe to do
        // so.
        let gone = eventually("the port is closed", || (asked() == [502, 502]).then_some(()));
        gone.or_fail("asking");
    }
}

#[test]
fn the_agent_may_restart() {
    let stage = Testbed::with_names(GATEWAY_CONFIG);
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    let recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    for number in 0..3 {
        let mut talk = sandbox.send_public_request("GET /", "\r\n");
        assert_eq!(talk.read_response().status, 200);
        assert_eq!(recorder.request_heads().len(), number + 1);
        if number == 0 {
            stage.kill_agent()
        } else {
            stage.stop_agent()
        }
        stage.restart_agent();
    }
}

#[test]
fn a_sandbox_without_its_interface_has_no_services() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let stage = &sandbox.testbed;
    stage
        .network
        .host
        .ip_batch(&format!("link del {}", sandbox.interface))
        .or_fail("deleting the link");
    let noticed = || {
        let reply = sandbox.send_public_request("GET /", "\r\n").try_read_response().ok()?;
        (reply.status == 502).then_some(reply)
    };
    let reply = eventually("the gateway notices", noticed).or_fail("asking");
    reply.assert_from_gateway(502);
    assert!(service.has_no_pending_connection());
}

#[test]
fn clients_can_check_whether_a_sandbox_exists() {
    let (sandbox, _recorder) = recording_sandbox(json!({}));
    let asked = |id: &str| {
        let fields = [format!("E2b-Sandbox-Id: {id}"), "E2b-Sandbox-Port: 49983".to_owned()];
        let curl = sandbox.testbed.curl_from_internet(&format!("http://{HOST_UPLINK_V4}/health"));
        let status = curl.with_arguments(&["-H", &fields[0], "-H", &fields[1]]).run().status;
        (status < 300, status == 502)
    };
    assert_eq!(asked(&sandbox.id), (true, false));
    assert_eq!(asked("nobody"), (false, true));
    sandbox.delete();
    assert_eq!(asked(&sandbox.id), (false, true));
}
