//! Floods of denied packets. Once the events of a sandbox are used up for the moment, the fast path
//! drops what it sends, with the same counts as the full program.

use policy_common::reason::Reason::{Delivered, DenyOut, PlatformDeny, Reply, SpoofedIp};
use policy_oracle::InboundOrigin::{Forwarded, Host};
use policy_testbed::packets::{
    EthernetFrame, IpPayload, TcpFlags,
    test_hosts::{CLIENT, GATEWAY, SERVER},
};

use super::datapath_case::{
    DENY_ALL, DatapathCase, datagram_from_sandbox, datagram_to_sandbox, receives, sends,
    syn_from_sandbox, udp_from_sandbox,
};

/// More than the events that a sandbox may have at once, at a rate that uses up all new ones.
const FLOOD: u32 = 50_000;

fn flood(case: &DatapathCase, frame: &EthernetFrame) {
    case.programs.gates().repeat_from_sandbox(frame.bytes(), FLOOD).expect("the gate runs");
}

#[test]
fn every_packet_of_a_flood_is_counted_and_its_event_written_or_suppressed() {
    let frames = [
        syn_from_sandbox(SERVER.v4, 443).to_frame(),
        syn_from_sandbox(SERVER.v6, 443).to_frame(),
        udp_from_sandbox(SERVER.v4).to_frame(),
        udp_from_sandbox(SERVER.v6).to_frame(),
    ];
    for frame in frames {
        let mut case = DatapathCase::with_network(DENY_ALL);
        flood(&case, &frame);
        let counted = case.programs.counters().expect("counters").by_reason[DenyOut as usize];
        assert_eq!(counted.packets, u64::from(FLOOD), "{frame:?}");
        assert_eq!(counted.bytes, u64::from(FLOOD) * frame.bytes().len() as u64, "{frame:?}");
        let limits = case.programs.rate_limits().expect("limits");
        let written = case.programs.count_events() as u64;
        assert!(written > 0 && limits.events_suppressed > 0, "{written} events, {limits:?}");
        let all = written + limits.events_suppressed + limits.events_lost;
        assert_eq!(all, u64::from(FLOOD), "{written} events, {limits:?}");
    }
}

#[test]
fn replies_pass_in_the_middle_of_a_flood() {
    let flooding = syn_from_sandbox(SERVER.v4, 443).to_frame();
    let answer = |flags| datagram_from_sandbox(CLIENT.v4, IpPayload::tcp(80, 51_000, flags));
    let response = || datagram_from_sandbox(GATEWAY.v4, IpPayload::udp(53, 41_000, b"answer"));
    let mut case = DatapathCase::with_network(DENY_ALL);
    flood(&case, &flooding);
    case.assert_steps(&[
        sends("a segment of no connection", answer(TcpFlags::ACK), DenyOut),
        sends("a response to nobody", response(), PlatformDeny),
        receives(
            "a client connects",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, IpPayload::syn(51_000, 80)),
            Delivered,
        ),
        receives(
            "the host asks",
            Host,
            datagram_to_sandbox(GATEWAY.v4, IpPayload::udp(41_000, 53, b"question")),
            Delivered,
        ),
    ]);
    flood(&case, &flooding);
    case.assert_steps(&[
        sends("the handshake", answer(TcpFlags::SYN_ACK), Reply),
        sends("data", answer(TcpFlags::ACK), Reply),
        sends("the response", response(), Reply),
        sends("a SYN", datagram_from_sandbox(CLIENT.v4, IpPayload::syn(80, 51_000)), DenyOut),
        sends("the end", answer(TcpFlags::FIN), Reply),
    ]);
}

#[test]
fn background_traffic_is_no_suppressed_event() {
    let mdns = datagram_from_sandbox([224, 0, 0, 251], IpPayload::udp(5353, 5353, b"query"));
    let mut case = DatapathCase::with_network(DENY_ALL);
    flood(&case, &udp_from_sandbox(SERVER.v4).to_frame());
    let before = case.programs.rate_limits().expect("limits");
    case.programs.gates().repeat_from_sandbox(mdns.to_frame().bytes(), FLOOD).expect("it runs");
    assert_eq!(case.programs.rate_limits().expect("limits"), before);
    case.assert_steps(&[sends("a query", mdns, PlatformDeny)]);
}

#[test]
fn an_address_of_another_is_spoofed_in_a_flood_too() {
    let mut case = DatapathCase::with_network(DENY_ALL);
    flood(&case, &udp_from_sandbox(SERVER.v4).to_frame());
    let mut spoofed = udp_from_sandbox(SERVER.v4);
    spoofed.source = CLIENT.v4.into();
    case.assert_steps(&[sends("from a foreign address", spoofed, SpoofedIp)]);
}
