//! WebSockets, and upgrades to other protocols.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use policy_testbed::{
    named_internet::raw_http::{CloseKind, RawHttpConnection},
    probe,
    public_url::{self, SERVICE_PORT, TOKEN_NAME},
    testbed::{OrFail as _, TestSandbox},
};
use serde_json::json;
use tungstenite::{Message, WebSocket};

use crate::{manual_sandbox, private_network, recording_sandbox, website_sandbox};

/// Opens the website's WebSocket.
#[track_caller]
fn open_web_socket(sandbox: &TestSandbox, query: &str) -> WebSocket<TcpStream> {
    let stream = probe::connect(&sandbox.testbed.network.internet, public_url::http_address());
    let url = format!("ws://{}/socket{query}", sandbox.public_host(SERVICE_PORT));
    let (socket, answer) =
        tungstenite::client(url, stream.or_fail("connecting")).or_fail("shaking hands");
    assert_eq!(answer.status(), 101);
    socket
}

/// Sends messages of all kinds and sizes over a WebSocket and expects them back.
#[track_caller]
fn assert_echoes<S: std::io::Read + std::io::Write>(socket: &mut WebSocket<S>) {
    for length in [0, 1, 125, 126, 65_536, 1_000_000] {
        for message in [Message::text("x".repeat(length)), Message::binary(vec![0xff; length])] {
            socket.send(message.clone()).or_fail("sending a message");
            assert_eq!(socket.read().or_fail("its echo"), message);
        }
    }
    socket.close(None).or_fail("closing");
    while socket.read().is_ok() {}
}

#[test]
fn web_sockets_carry_messages_of_all_sizes() {
    let (sandbox, _website) = website_sandbox(json!({}));
    assert_echoes(&mut open_web_socket(&sandbox, ""));
    let stream = probe::connect(&sandbox.testbed.network.internet, public_url::https_address());
    let trust = crate::certificates::client_trusting_self_signed(&sandbox.testbed);
    let name = sandbox.public_host(SERVICE_PORT).try_into().or_fail("a name");
    let client = rustls::ClientConnection::new(trust, name).or_fail("a client");
    let tls = rustls::StreamOwned::new(client, stream.or_fail("connecting"));
    let url = format!("wss://{}/socket", sandbox.public_host(SERVICE_PORT));
    let (mut socket, _) = tungstenite::client(url, tls).or_fail("shaking hands");
    assert_echoes(&mut socket);
}

#[test]
fn many_web_sockets_at_once_keep_apart() {
    let (sandbox, _website) = website_sandbox(json!({}));
    let mut sockets: Vec<_> = (0..50).map(|_| open_web_socket(&sandbox, "")).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.send(Message::text(number.to_string())).or_fail("sending");
    }
    for (number, socket) in sockets.iter_mut().enumerate().rev() {
        assert_eq!(socket.read().or_fail("an echo"), Message::text(number.to_string()));
    }
}

#[test]
fn a_private_web_socket_opens_with_the_token_as_a_parameter() {
    let (sandbox, _website) = website_sandbox(private_network());
    let token = sandbox.traffic_token();
    let mut socket = open_web_socket(&sandbox, &format!("?{TOKEN_NAME}={token}"));
    assert_echoes(&mut socket);
    for query in ["", "?e2b-traffic-access-token=wrong"] {
        let stream = probe::connect(&sandbox.testbed.network.internet, public_url::http_address());
        let url = format!("ws://{}/socket{query}", sandbox.public_host(SERVICE_PORT));
        match tungstenite::client(url, stream.or_fail("connecting")) {
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                assert_eq!(answer.status(), 403);
            }
            other => panic!("{query:?}: {:?}", other.map(|(_, answer)| answer)),
        }
    }
}

/// Requests an upgrade and sends `early` before it is granted.
#[track_caller]
fn request_upgrade(sandbox: &TestSandbox, early: &str) -> RawHttpConnection {
    let fields = format!("Connection: Upgrade\r\nUpgrade: raw/1\r\n\r\n{early}");
    sandbox.send_public_request("GET /raw", &fields)
}

const SWITCHING_RESPONSE: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n";

#[test]
fn any_protocol_is_carried_both_ways_from_its_first_byte() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut talk = request_upgrade(&sandbox, "early ");
    let mut served = service.accept();
    let head = served.read_head().to_lowercase();
    assert!(head.contains("\r\nupgrade: raw/1\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    served.send(&format!("{SWITCHING_RESPONSE}first "));
    assert_eq!(talk.read_response().status, 101);
    talk.send("\0late\r\n\r\n");
    assert_eq!(served.read_until("late\r\n\r\n"), "early \0late\r\n\r\n");
    served.send("last");
    // After one side closes its sending direction, the other can still send.
    talk.stream().shutdown(Shutdown::Write).or_fail("ending one way");
    assert_eq!(served.read_to_close(), "");
    served.send(", and least");
    drop(served);
    let mut rest = talk.unread().to_vec();
    talk.stream().read_to_end(&mut rest).or_fail("reading to the end");
    assert_eq!(String::from_utf8_lossy(&rest), "first last, and least");
}

#[test]
fn a_service_that_ends_or_breaks_off_ends_the_client() {
    let (sandbox, service) = manual_sandbox(json!({}));
    for breaks_off in [false, true] {
        let mut talk = request_upgrade(&sandbox, "");
        let mut served = service.accept();
        served.read_head();
        served.send(SWITCHING_RESPONSE);
        assert_eq!(talk.read_response().status, 101);
        if breaks_off {
            let now = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(&served.stream).set_linger(now).or_fail("a reset");
        }
        drop(served);
        let ending = talk.read_to_close();
        assert!(breaks_off || ending == CloseKind::Clean, "{ending:?}");
    }
}

#[test]
fn an_offer_that_is_declined_leaves_http() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    // The service responds with 200, so what follows is another request and must be valid.
    let mut talk = request_upgrade(&sandbox, "");
    assert_eq!(talk.read_response().status, 200);
    assert_eq!(talk.send_get(&sandbox.public_host(SERVICE_PORT)).read_response().status, 200);
    let second = sandbox.public_request_text("GET /second", "\r\n");
    let mut talk = request_upgrade(&sandbox, &second);
    assert_eq!((talk.read_response().status, talk.read_response().status), (200, 200));
    let heads = recorder.request_heads();
    assert_eq!(heads.len(), 4, "{heads:?}");
    let mut talk = request_upgrade(&sandbox, "\0\0 HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n");
    assert_eq!(talk.read_response().status, 200);
    assert_eq!(talk.read_response().status, 400);
    talk.read_to_close();
    assert!(!recorder.received_text().contains("smuggled"), "{}", recorder.received_text());
}

#[test]
fn a_refusal_of_the_gateway_is_no_upgrade_either() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let mut talk = request_upgrade(&sandbox, "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.read_response().assert_from_gateway(403);
    talk.read_response().assert_from_gateway(400);
    talk.stream().write_all(b"GET /smuggled").or_fail("sending");
    assert_eq!(recorder.connection_count(), 0);
}

#[test]
fn http_is_no_other_protocol() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    for protocol in ["h2c", "HTTP/2.0", "TLS/1.0, HTTP/1.1"] {
        let fields = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        assert_eq!(
            sandbox.send_public_request("GET /", &fields).read_response().status,
            200,
            "{protocol}"
        );
    }
    let text = recorder.received_text().to_lowercase();
    assert!(!text.contains("h2c") && !text.contains("upgrade: http"), "{text}");
}

#[test]
fn a_service_cannot_switch_unasked() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send(SWITCHING_RESPONSE);
    talk.read_response().assert_from_gateway(502);
}
