//! Connections to a sandbox: replies are allowed under any policy and do not open the way for other
//! traffic.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
};

use policy_testbed::{
    network::NetworkNamespace,
    packets::{IpPayload, TcpFlags},
    probe::{self, ProbeKind, ProbeResult},
    test_servers::{self, TestServers},
    testbed::{MARKER_ADDRESS, OrFail as _, SharedTestbed, TestSandbox, parse_ip},
    wait::{eventually, retry_interrupted},
};
use serde_json::json;

static ANY_INBOUND: SharedTestbed = SharedTestbed::with_config("");
static HOST_INBOUND: SharedTestbed = SharedTestbed::with_config("[dataplane]\ninbound = \"host\"");

const TCP_ECHO: ProbeKind = ProbeKind::Tcp(test_servers::ECHO_PORT);
const UDP_ECHO: ProbeKind = ProbeKind::Udp(test_servers::ECHO_PORT);

/// A sandbox that can reach the marker address only, and servers in it.
fn sandbox_with_servers(stage: &SharedTestbed) -> (TestSandbox, TestServers) {
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&[MARKER_ADDRESS]);
    let servers = TestServers::start(&sandbox.namespace, &sandbox.addresses());
    (sandbox, servers.or_fail("starting servers in the sandbox"))
}

#[test]
fn the_host_is_answered_under_deny_all() {
    for stage in [&ANY_INBOUND, &HOST_INBOUND] {
        let (sandbox, _servers) = sandbox_with_servers(stage);
        for address in sandbox.addresses() {
            for how in [TCP_ECHO, ProbeKind::Tcp(test_servers::SSH_PORT), UDP_ECHO, ProbeKind::Ping]
            {
                let seen = probe::probe(&sandbox.testbed.network.host, how, address);
                assert_eq!(seen, ProbeResult::Answered, "{how} to {address}");
            }
        }
    }
}

#[test]
fn outsiders_are_answered_over_tcp_only() {
    let (sandbox, _servers) = sandbox_with_servers(&ANY_INBOUND);
    for address in sandbox.addresses() {
        let internet = &sandbox.testbed.network.internet;
        assert_eq!(probe::probe(internet, TCP_ECHO, address), ProbeResult::Answered);
        assert_eq!(
            probe::probe_expecting_silence(internet, UDP_ECHO, address),
            ProbeResult::NoReply
        );
        assert_eq!(
            probe::probe_expecting_silence(internet, ProbeKind::Ping, address),
            ProbeResult::NoReply
        );
    }
    let counters = &sandbox.status()["counters"];
    assert!(counters["reply"]["packets"].as_u64() > Some(0), "{counters}");
    assert!(counters["deny_out"]["packets"].as_u64() > Some(0), "{counters}");
}

#[test]
fn inbound_host_refuses_what_the_host_forwards() {
    let (sandbox, _servers) = sandbox_with_servers(&HOST_INBOUND);
    for address in sandbox.addresses() {
        for how in [TCP_ECHO, UDP_ECHO, ProbeKind::Ping] {
            let seen =
                probe::probe_expecting_silence(&sandbox.testbed.network.internet, how, address);
            assert_eq!(seen, ProbeResult::NoReply, "{how} to {address}");
        }
    }
    let refused = sandbox.wait_for_event("a refused connection", |event| {
        event["reason"] == "inbound_refused" && event["protocol"] == "tcp"
    });
    assert_eq!(refused["verdict"], "denied");
}

#[test]
fn inbound_host_lets_answers_to_the_sandbox_in() {
    let sandbox = HOST_INBOUND.add_sandbox();
    sandbox.apply_network(json!({}));
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_reaches("2001:db8:1::1");
}

#[test]
fn an_inbound_connection_survives_a_tightening() {
    let sandbox = ANY_INBOUND.add_sandbox();
    sandbox.apply_network(json!({}));
    let _servers = TestServers::start(&sandbox.namespace, &sandbox.addresses()).or_fail("servers");
    for from in [&sandbox.testbed.network.host, &sandbox.testbed.network.internet] {
        let to = SocketAddr::new(sandbox.addressing.v4().into(), test_servers::ECHO_PORT);
        let mut stream = probe::connect(from, to).or_fail("connecting to the sandbox");
        probe::echo(&mut stream, b"before").or_fail("before the tightening");
        sandbox.allow_only(&[MARKER_ADDRESS]);
        probe::echo(&mut stream, b"after").or_fail("after the tightening");
        sandbox.apply_network(json!({}));
    }
}

#[test]
fn a_closed_port_answers_with_its_own_reset() {
    let sandbox = ANY_INBOUND.add_sandbox();
    sandbox.allow_only(&[MARKER_ADDRESS]);
    let (v4, internet) = (sandbox.addressing.v4().into(), &sandbox.testbed.network.internet);
    assert_eq!(
        probe::probe(internet, ProbeKind::Tcp(test_servers::CLOSED_PORT), v4),
        ProbeResult::Refused
    );
}

#[test]
fn an_exposed_port_does_not_allow_outbound_connections() {
    let (sandbox, _servers) = sandbox_with_servers(&ANY_INBOUND);
    let (internet, v4) = (&sandbox.testbed.network.internet, sandbox.addressing.v4());
    let caller =
        probe::connect(internet, (v4, test_servers::ECHO_PORT).into()).or_fail("connecting");
    let caller = caller.local_addr().or_fail("the caller's address");
    let (me, token) = (sandbox.frame_builder(), sandbox.frame_token());
    let segment =
        |port, flags| IpPayload::tcp(test_servers::ECHO_PORT, port, flags).with_data(&token);
    let opening = |port| segment(port, TcpFlags::SYN);
    let frames = [
        // To another host, to another port of the caller, and to the caller's own port, which would
        // be a simultaneous open.
        me.frame_payload(parse_ip("8.8.8.8"), opening(443)),
        me.frame_payload(caller.ip(), opening(443)),
        me.frame_payload(caller.ip(), opening(caller.port())),
        me.udp(caller.ip(), caller.port(), &token),
    ];
    assert!(sandbox.frames_crossing(&frames).is_empty());
    let acknowledging = segment(caller.port(), TcpFlags::ACK);
    assert_eq!(
        sandbox.frames_crossing(&[me.frame_payload(caller.ip(), acknowledging)]).len(),
        1,
        "a reply"
    );
}

#[test]
fn a_segment_without_a_connection_is_no_reply() {
    let sandbox = ANY_INBOUND.add_sandbox();
    sandbox.allow_only(&[MARKER_ADDRESS]);
    let (me, token) = (sandbox.frame_builder(), sandbox.frame_token());
    let frames = [0, 0x01, 0x04, 0x10, 0x12, 0x3f, 0xff].map(|flags| {
        me.frame_payload(
            parse_ip("8.8.8.8"),
            IpPayload::tcp(22, 40_000, TcpFlags(flags)).with_data(&token),
        )
    });
    assert!(sandbox.frames_crossing(&frames).is_empty());
}

#[test]
fn a_late_answer_of_a_server_opens_nothing() {
    let sandbox = ANY_INBOUND.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": [MARKER_ADDRESS] }));
    let internet = &sandbox.testbed.network.internet;
    let outsider = internet_socket(internet, "198.51.100.7:9000");
    let socket = {
        let _inside = sandbox.namespace.enter().or_fail("entering");
        UdpSocket::bind("0.0.0.0:9001").or_fail("binding")
    };
    socket.send_to(b"hello", "198.51.100.7:9000").or_fail("an allowed datagram");
    let mut bytes = [0; 64];
    let (_, sandbox_address) =
        retry_interrupted(|| outsider.recv_from(&mut bytes)).or_fail("the datagram");

    sandbox.allow_only(&[MARKER_ADDRESS]);
    outsider.send_to(b"late", sandbox_address).or_fail("answering late");
    let length =
        retry_interrupted(|| socket.recv(&mut bytes)).or_fail("the late answer is delivered");
    assert_eq!(&bytes[..length], b"late");
    let frame = sandbox.frame_builder().udp(parse_ip("198.51.100.7"), 9000, &sandbox.frame_token());
    assert!(sandbox.frames_crossing(&[frame]).is_empty());
    let _ = socket.send_to(b"and on", "198.51.100.7:9000");
    let denied = sandbox.wait_for_event("the denied datagram", |event| event["sourcePort"] == 9001);
    assert_eq!(denied["reason"], "deny_out");
    assert!(outsider.recv_from(&mut bytes).is_err(), "nothing more arrives");
}

#[test]
fn a_large_download_from_the_sandbox_arrives_whole() {
    let (sandbox, _servers) = sandbox_with_servers(&ANY_INBOUND);
    let to = SocketAddr::new(sandbox.addressing.v6().into(), test_servers::ECHO_PORT);
    let stream = probe::connect(&sandbox.testbed.network.internet, to).or_fail("connecting");
    let sent: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();
    let (mut writer, mut reader) = (stream.try_clone().or_fail("cloning"), stream);
    let mut back = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent).or_fail("sending"));
        reader.read_exact(&mut back).or_fail("receiving");
    });
    assert!(back == sent);
}

#[test]
fn path_mtu_errors_come_back_in() {
    let sandbox = ANY_INBOUND.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.9"] }));
    sandbox
        .testbed
        .network
        .host
        .ip_batch("route add 8.8.8.9 via 192.0.2.2 mtu lock 1000")
        .or_fail("mtu");
    let socket = sandbox.connect_echo_udp("8.8.8.9");
    let learned = eventually("the sandbox learns the path's MTU", || {
        let error = socket.send(&[0; 1400]).err()?;
        (error.raw_os_error() == Some(libc::EMSGSIZE)).then_some(())
    });
    learned.or_fail("sending too large a datagram");
}

/// A UDP socket in the internet on which the test replies itself.
fn internet_socket(internet: &NetworkNamespace, address: &str) -> UdpSocket {
    let _inside = internet.enter().or_fail("entering the internet");
    let socket = UdpSocket::bind(address).or_fail("binding in the internet");
    socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).or_fail("a timeout");
    socket
}
