//! The test network without an agent: everything can be reached. So what other tests find blocked,
//! the policy blocks.

use etherparse::ip_number::GRE;
use policy_testbed::{
    network::{bridged_sandbox, internet_addresses},
    packets::{ExtensionHeader, IpPayload},
    probe::ProbeResult,
    test_servers,
    testbed::{OrFail as _, Testbed, parse_ip},
};

#[test]
fn without_a_policy_every_address_answers() {
    let stage = Testbed::without_agent("");
    let sandbox = stage.add_sandbox();
    for address in
        internet_addresses::PUBLIC_ADDRESSES.iter().chain(&internet_addresses::FLOOR_ADDRESSES)
    {
        sandbox.assert_reaches(address);
    }
}

#[test]
fn every_server_answers_and_a_closed_port_refuses() {
    let stage = Testbed::without_agent("");
    let sandbox = stage.add_sandbox();
    for port in [
        test_servers::SSH_PORT,
        test_servers::HTTP_PORT,
        test_servers::HTTPS_PORT,
        test_servers::ECHO_PORT,
    ] {
        assert_eq!(sandbox.probe_tcp("8.8.8.8", port), ProbeResult::Answered, "port {port}");
    }
    assert_eq!(sandbox.probe_tcp("8.8.8.8", test_servers::CLOSED_PORT), ProbeResult::Refused);
    assert_eq!(sandbox.probe_udp("8.8.8.8", test_servers::DNS_PORT), ProbeResult::Answered);
    assert_eq!(sandbox.probe_udp("8.8.8.8", test_servers::CLOSED_PORT), ProbeResult::Refused);
}

#[test]
fn without_a_policy_raw_and_spoofed_frames_cross() {
    let stage = Testbed::without_agent("");
    let sandbox = stage.add_sandbox();
    let (me, token) = (sandbox.frame_builder(), sandbox.frame_token());
    let mut stranger = me;
    stranger.v4 = "10.11.200.9".parse().or_fail("parsing");
    let raw = IpPayload::raw(GRE.0, &token);
    let behind = me.datagram_to(parse_ip("2001:db8:1::1"), raw.clone());
    let frames = [
        me.udp(parse_ip("8.8.8.8"), test_servers::CLOSED_PORT, &token),
        stranger.udp(parse_ip("8.8.8.8"), test_servers::CLOSED_PORT, &token),
        me.frame_payload(parse_ip("8.8.8.8"), raw),
        me.frame_datagram(&behind.with_extension(ExtensionHeader::destination_options(1))),
    ];
    assert_eq!(sandbox.frames_crossing(&frames).len(), frames.len());
}

#[test]
fn sandbox_and_neighbor_share_a_bridge() {
    let stage = Testbed::without_agent("");
    let (sandbox, neighbour) =
        bridged_sandbox::bridged_sandbox_with_neighbor(&stage.network).or_fail("building a bridge");
    let gateway = sandbox.addressing.gateway_v4().into();
    let seen = policy_testbed::probe::probe(
        &sandbox.namespace,
        policy_testbed::probe::ProbeKind::Ping,
        gateway,
    );
    assert_eq!(seen, ProbeResult::Answered);
    drop(neighbour);
}
