//! Floods of denied packets. Once the events of a sandbox are used up for the moment, the fast path
//! drops what it sends, with the same counts as the full program.

use policy_common::reason::Reason::{DenyOut, PlatformDeny, SpoofedIp};
use policy_testbed::packets::{
    EthernetFrame, IpPayload,
    test_hosts::{CLIENT, SERVER},
};

use super::datapath_case::{
    DENY_ALL, DatapathCase, datagram_from_sandbox, sends, syn_from_sandbox, udp_from_sandbox,
};

/// More than the events that a sandbox may have at once, at a rate that uses up all new ones.
const FLOOD: u32 = 50_000;

/// Makes the sandbox use up its events.
pub(crate) fn flood(case: &DatapathCase, frame: &EthernetFrame) {
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
