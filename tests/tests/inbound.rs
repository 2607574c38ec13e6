//! Connections towards a sandbox: they are answered under any policy, and open no way out.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
};

use policy_tests::{
    packet::{Payload, TcpFlags},
    patience::eventually,
    probe::{self, How, Seen},
    server::{self, Servers},
    stage::{Guest, MARKER_TO, OrFail as _, Shared, ip},
    world::Namespace,
};
use serde_json::{Value, json};

static ANY: Shared = Shared::with("");
static HOST_ONLY: Shared = Shared::with("[dataplane]\ninbound = \"host\"");

const TCP: How = How::Tcp(server::ECHO);
const UDP: How = How::Udp(server::ECHO);

/// A sandbox that may reach nothing but the marker, and servers in it.
fn serving(stage: &Shared) -> (Guest, Servers) {
    let sandbox = stage.sandbox();
    sandbox.network(deny_all());
    let servers = Servers::start(&sandbox.inside, &sandbox.addresses());
    (sandbox, servers.or_fail("starting servers in the sandbox"))
}

fn deny_all() -> Value {
    json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [MARKER_TO] })
}

#[test]
fn the_host_is_answered_under_deny_all() {
    for stage in [&ANY, &HOST_ONLY] {
        let (sandbox, _servers) = serving(stage);
        for address in sandbox.addresses() {
            for how in [TCP, How::Tcp(server::SSH), UDP, How::Ping] {
                let seen = probe::attempt(&sandbox.stage.world.host, how, address);
                assert_eq!(seen, Seen::Answered, "{how} to {address}");
            }
        }
    }
}

#[test]
fn outsiders_are_answered_over_tcp_only() {
    let (sandbox, _servers) = serving(&ANY);
    for address in sandbox.addresses() {
        let internet = &sandbox.stage.world.internet;
        assert_eq!(probe::attempt(internet, TCP, address), Seen::Answered);
        assert_eq!(probe::attempt_in_vain(internet, UDP, address), Seen::Silence);
        assert_eq!(probe::attempt_in_vain(internet, How::Ping, address), Seen::Silence);
    }
    let counters = &sandbox.status()["counters"];
    assert!(counters["reply"]["packets"].as_u64() > Some(0), "{counters}");
    assert!(counters["deny_out"]["packets"].as_u64() > Some(0), "{counters}");
}

#[test]
fn inbound_host_refuses_what_the_host_forwards() {
    let (sandbox, _servers) = serving(&HOST_ONLY);
    for address in sandbox.addresses() {
        for how in [TCP, UDP, How::Ping] {
            let seen = probe::attempt_in_vain(&sandbox.stage.world.internet, how, address);
            assert_eq!(seen, Seen::Silence, "{how} to {address}");
        }
    }
    let refused = sandbox.event("a refused connection", |event| {
        event["reason"] == "inbound_refused" && event["protocol"] == "tcp"
    });
    assert_eq!(refused["verdict"], "denied");
}

#[test]
fn inbound_host_lets_answers_to_the_sandbox_in() {
    let sandbox = HOST_ONLY.sandbox();
    sandbox.network(json!({}));
    sandbox.reaches("8.8.8.8");
    sandbox.reaches("2001:db8:1::1");
}

#[test]
fn an_inbound_connection_survives_a_tightening() {
    let sandbox = ANY.sandbox();
    sandbox.network(json!({}));
    let _servers = Servers::start(&sandbox.inside, &sandbox.addresses()).or_fail("servers");
    for from in [&sandbox.stage.world.host, &sandbox.stage.world.internet] {
        let to = SocketAddr::new(sandbox.identity.v4().into(), server::ECHO);
        let mut stream = probe::connect(from, to).or_fail("connecting to the sandbox");
        probe::echo(&mut stream, b"before").or_fail("before the tightening");
        sandbox.network(deny_all());
        probe::echo(&mut stream, b"after").or_fail("after the tightening");
        sandbox.network(json!({}));
    }
}

#[test]
fn a_closed_port_answers_with_its_own_reset() {
    let sandbox = ANY.sandbox();
    sandbox.network(deny_all());
    let (v4, internet) = (sandbox.identity.v4().into(), &sandbox.stage.world.internet);
    assert_eq!(probe::attempt(internet, How::Tcp(server::CLOSED), v4), Seen::Refused);
}

#[test]
fn an_exposed_port_is_no_way_out() {
    let (sandbox, _servers) = serving(&ANY);
    let (internet, v4) = (&sandbox.stage.world.internet, sandbox.identity.v4());
    let caller = probe::connect(internet, (v4, server::ECHO).into()).or_fail("connecting");
    let caller = caller.local_addr().or_fail("the caller's address");
    let (me, token) = (sandbox.sender(), sandbox.token());
    let segment = |port, flags| Payload::tcp(server::ECHO, port, flags).data(&token);
    let opening = |port| segment(port, TcpFlags::SYN);
    let frames = [
        // To someone else, to the caller at another port, and to the caller's own port, which
        // would be a simultaneous open.
        me.send(ip("8.8.8.8"), opening(443)),
        me.send(caller.ip(), opening(443)),
        me.send(caller.ip(), opening(caller.port())),
        me.udp(caller.ip(), caller.port(), &token),
    ];
    assert!(sandbox.crossing(&frames).is_empty());
    let acknowledging = segment(caller.port(), TcpFlags::ACK);
    assert_eq!(sandbox.crossing(&[me.send(caller.ip(), acknowledging)]).len(), 1, "a reply");
}

#[test]
fn a_segment_without_a_connection_is_no_reply() {
    let sandbox = ANY.sandbox();
    sandbox.network(deny_all());
    let (me, token) = (sandbox.sender(), sandbox.token());
    let frames = [0, 0x01, 0x04, 0x10, 0x12, 0x3f, 0xff].map(|flags| {
        me.send(ip("8.8.8.8"), Payload::tcp(22, 40_000, TcpFlags(flags)).data(&token))
    });
    assert!(sandbox.crossing(&frames).is_empty());
}

#[test]
fn a_late_answer_of_a_server_opens_no_way_back() {
    let sandbox = ANY.sandbox();
    sandbox.network(json!({ "allowOut": [MARKER_TO] }));
    let internet = &sandbox.stage.world.internet;
    let outsider = outsider(internet, "198.51.100.7:9000");
    let socket = {
        let _inside = sandbox.inside.enter().or_fail("entering");
        UdpSocket::bind("0.0.0.0:9001").or_fail("binding")
    };
    socket.send_to(b"hello", "198.51.100.7:9000").or_fail("an allowed datagram");
    let mut bytes = [0; 64];
    let (_, sandbox_address) = outsider.recv_from(&mut bytes).or_fail("the datagram");

    sandbox.network(deny_all());
    outsider.send_to(b"late", sandbox_address).or_fail("answering late");
    let length = socket.recv(&mut bytes).or_fail("the late answer is delivered");
    assert_eq!(&bytes[..length], b"late");
    let frame = sandbox.sender().udp(ip("198.51.100.7"), 9000, &sandbox.token());
    assert!(sandbox.crossing(&[frame]).is_empty());
    let _ = socket.send_to(b"and on", "198.51.100.7:9000");
    let denied = sandbox.event("the denied datagram", |event| event["sourcePort"] == 9001);
    assert_eq!(denied["reason"], "deny_out");
    assert!(outsider.recv_from(&mut bytes).is_err(), "nothing more arrives");
}

#[test]
fn a_large_download_from_the_sandbox_arrives_whole() {
    let (sandbox, _servers) = serving(&ANY);
    let to = SocketAddr::new(sandbox.identity.v6().into(), server::ECHO);
    let stream = probe::connect(&sandbox.stage.world.internet, to).or_fail("connecting");
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
    let sandbox = ANY.sandbox();
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.9"] }));
    sandbox.stage.world.host.ip("route add 8.8.8.9 via 192.0.2.2 mtu lock 1000").or_fail("mtu");
    let socket = sandbox.datagrams("8.8.8.9");
    let learned = eventually("the sandbox learns the path's MTU", || {
        let error = socket.send(&[0; 1400]).err()?;
        (error.raw_os_error() == Some(libc::EMSGSIZE)).then_some(())
    });
    learned.or_fail("sending too large a datagram");
}

/// A UDP socket in the internet that answers by hand.
fn outsider(internet: &Namespace, address: &str) -> UdpSocket {
    let _inside = internet.enter().or_fail("entering the internet");
    let socket = UdpSocket::bind(address).or_fail("binding in the internet");
    socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).or_fail("a timeout");
    socket
}
