//! Unicast neighbour discovery on hosts whose switches for IPv6 forwarding differ. What the stack
//! forwards does not pass, whatever the kernel's route lookup says about the interface.

use std::{fs, net::Ipv6Addr};

use policy_testbed::{
    network::host_router::INTERNET_UPLINK_V6,
    packet_socket::{PacketView, contains_bytes},
    packets::{
        IpPayload,
        neighbor_messages::{NdOption::SourceLinkAddress, neighbor_solicitation},
    },
    probe::ProbeResult,
    test_servers,
    testbed::{MARKER_ADDRESS, OrFail as _, TestSandbox, Testbed, parse_ip},
};

/// An address in the sandbox's subnet that the host routes elsewhere, as to another sandbox.
fn routed_neighbor(sandbox: &TestSandbox) -> Ipv6Addr {
    let mut segments = sandbox.addressing.v6().segments();
    segments[7] = 0x99;
    let neighbor = Ipv6Addr::from(segments);
    let host = &sandbox.testbed.network.host;
    host.ip_batch(&format!("route replace {neighbor}/128 via {INTERNET_UPLINK_V6}"))
        .or_fail("routing the neighbour's address");
    neighbor
}

/// The number of solicitations of this address, sent to itself, that reach the internet.
fn solicitations_crossing(sandbox: &TestSandbox, target: Ipv6Addr) -> usize {
    let marker = sandbox.probe_udp(MARKER_ADDRESS, test_servers::ECHO_PORT);
    assert_eq!(marker, ProbeResult::Answered, "the gateway is resolved");
    let (builder, wire) = (sandbox.frame_builder(), sandbox.open_packet_socket());
    let uplink = sandbox.open_uplink_socket();
    let option = [SourceLinkAddress(sandbox.addressing.mac())];
    let mut frame =
        builder.frame_datagram(&neighbor_solicitation(sandbox.addressing.v6(), target, &option));
    frame[38..54].copy_from_slice(&target.octets());
    wire.send(&frame).or_fail("asking");
    let token = sandbox.frame_token();
    let last = IpPayload::udp(4000, test_servers::CLOSED_PORT, &token);
    wire.send(&builder.frame_payload(parse_ip(MARKER_ADDRESS), last)).or_fail("the marker");
    let seen = uplink.receive_until(|frame| contains_bytes(frame, &token)).or_fail("listening");
    let to_target = |frame: &&Vec<u8>| frame.get(38..54) == Some(&target.octets());
    let crossed = seen.iter().filter(to_target);
    crossed.filter(|frame| PacketView::parse(frame).is_some()).count()
}

#[track_caller]
fn assert_not_forwarded(switches: &[(&str, &str)]) {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.allow_only(&[MARKER_ADDRESS]);
    let target = routed_neighbor(&sandbox);
    for (switch, value) in switches {
        let key = format!("ipv6/conf/{}/{switch}", sandbox.addressing.host_interface());
        stage.network.host.sysctl(&key, value).or_fail(switch);
    }
    assert_eq!(solicitations_crossing(&sandbox, target), 0, "{switches:?}");
    // Without a policy the stack forwards it, so the policy is what drops it.
    sandbox.delete();
    assert_eq!(solicitations_crossing(&sandbox, target), 1, "{switches:?}, without a policy");
}

#[test]
fn a_forwarded_solicitation_does_not_pass() {
    assert_not_forwarded(&[]);
}

#[test]
fn a_solicitation_does_not_pass_if_only_the_interface_does_not_forward() {
    assert_not_forwarded(&[("forwarding", "0")]);
}

#[test]
fn a_solicitation_does_not_pass_if_the_interface_is_forced_to_forward() {
    // Linux 6.17 has this switch.
    if fs::exists("/proc/sys/net/ipv6/conf/all/force_forwarding").or_fail("looking for a switch") {
        assert_not_forwarded(&[("forwarding", "0"), ("force_forwarding", "1")]);
    }
}

#[test]
fn the_gateway_is_verified_if_only_the_interface_does_not_forward() {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.allow_only(&[MARKER_ADDRESS]);
    let key = format!("ipv6/conf/{}/forwarding", sandbox.addressing.host_interface());
    stage.network.host.sysctl(&key, "0").or_fail("forwarding");
    let before = neighbor_packets(&sandbox);
    let gateway = sandbox.addressing.gateway_v6();
    let option = [SourceLinkAddress(sandbox.addressing.mac())];
    let ask = neighbor_solicitation(sandbox.addressing.v6(), gateway, &option);
    let mut frame = sandbox.frame_builder().frame_datagram(&ask);
    frame[38..54].copy_from_slice(&gateway.octets());
    assert!(sandbox.frames_crossing(&[frame]).is_empty());
    assert!(neighbor_packets(&sandbox) > before);
    assert_eq!(sandbox.status()["counters"]["neighbor_spoof"]["packets"].as_u64().unwrap_or(0), 0);
}

fn neighbor_packets(sandbox: &TestSandbox) -> u64 {
    sandbox.status()["counters"]["neighbor"]["packets"].as_u64().unwrap_or(0)
}
