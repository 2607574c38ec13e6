//! The world alone, no agent in it: everything can be reached. What later tests find blocked, the
//! policy blocks.

use etherparse::ip_number::GRE;
use policy_tests::{
    packet::{Extension, Payload},
    probe::Seen,
    server,
    stage::{OrFail as _, Stage, ip},
    world::{bridge, internet},
};

#[test]
fn without_a_policy_every_address_answers() {
    let stage = Stage::without_agent("");
    let sandbox = stage.sandbox();
    for address in internet::PUBLIC.iter().chain(&internet::FLOOR) {
        sandbox.reaches(address);
    }
}

#[test]
fn every_server_answers_and_a_closed_port_refuses() {
    let stage = Stage::without_agent("");
    let sandbox = stage.sandbox();
    for port in [server::SSH, server::HTTP, server::HTTPS, server::ECHO] {
        assert_eq!(sandbox.tcp("8.8.8.8", port), Seen::Answered, "port {port}");
    }
    assert_eq!(sandbox.tcp("8.8.8.8", server::CLOSED), Seen::Refused);
    assert_eq!(sandbox.udp("8.8.8.8", server::DNS), Seen::Answered);
    assert_eq!(sandbox.udp("8.8.8.8", server::CLOSED), Seen::Refused);
}

#[test]
fn without_a_policy_raw_and_spoofed_frames_cross() {
    let stage = Stage::without_agent("");
    let sandbox = stage.sandbox();
    let (me, token) = (sandbox.sender(), sandbox.token());
    let mut stranger = me;
    stranger.v4 = "10.11.200.9".parse().or_fail("parsing");
    let raw = Payload::raw(GRE.0, &token);
    let behind = me.datagram(ip("2001:db8:1::1"), raw.clone());
    let frames = [
        me.udp(ip("8.8.8.8"), server::CLOSED, &token),
        stranger.udp(ip("8.8.8.8"), server::CLOSED, &token),
        me.send(ip("8.8.8.8"), raw),
        me.framed(&behind.behind(Extension::destination_options(1))),
    ];
    assert_eq!(sandbox.crossing(&frames).len(), frames.len());
}

#[test]
fn sandbox_and_neighbour_share_a_bridge() {
    let stage = Stage::without_agent("");
    let (sandbox, neighbour) =
        bridge::sandbox_with_neighbour(&stage.world).or_fail("building a bridge");
    let gateway = sandbox.identity.gateway_v4().into();
    let seen =
        policy_tests::probe::attempt(&sandbox.inside, policy_tests::probe::How::Ping, gateway);
    assert_eq!(seen, Seen::Answered);
    drop(neighbour);
}
