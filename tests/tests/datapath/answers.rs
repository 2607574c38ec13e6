//! What a denied program sees: the bytes of resets and of "administratively prohibited".

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice, ip_number};
use policy_agent::dataplane::DenyAction;
use policy_common::{limit::REJECTS, reason::Reason};
use policy_tests::{
    kernel::Action,
    packet::{
        Datagram, ETHERNET, Extension, Frame, Payload, TcpFlags,
        cast::{GATEWAY, NEIGHBOUR, OTHER, SANDBOX, SERVER},
        checksum,
    },
};

use super::stage::{Setting, Stage, from_sandbox, syn_to, udp_to};

const SHUT: &str = r#"{"denyOut": ["0.0.0.0/0"]}"#;

fn stage() -> Stage {
    Stage::set(SHUT, Setting { deny_action: DenyAction::Reject, ..Setting::default() })
}

/// What the kernel did with a frame that has to be denied.
fn denied(stage: &mut Stage, frame: &Frame) -> Action {
    let outcome = stage.kernel.from_sandbox(frame.bytes()).expect("the gate runs");
    assert!(outcome.reason.is_some_and(|reason| !reason.passes()), "{outcome:?}");
    outcome.action
}

/// The answer to a frame, after what all answers have in common was checked: it goes back where
/// the frame came from, as from where the frame went, and its checksums are right. Returns the
/// answer's transport bytes.
fn answer(stage: &mut Stage, datagram: &Datagram) -> (u8, Vec<u8>) {
    let sent = datagram.frame();
    let Action::Answer(bytes) = denied(stage, &sent) else { panic!("no answer to {sent:?}") };
    assert_eq!(bytes[0..6], SANDBOX.mac);
    assert_eq!(bytes[6..12], GATEWAY.mac);
    assert_eq!(bytes[12..14], sent.bytes()[12..14]);
    let parsed =
        SlicedPacket::from_ethernet(&bytes).unwrap_or_else(|e| panic!("{e}: {bytes:02x?}"));
    let (source, destination, protocol): (IpAddr, IpAddr, u8) = match parsed.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            (header.source_addr().into(), header.destination_addr().into(), header.protocol().0)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.next_header().0)
        }
        other => panic!("no IP packet: {other:?}"),
    };
    assert_eq!((source, destination), (datagram.destination, datagram.source));
    let header = if source.is_ipv4() { 20 } else { 40 };
    let transport = bytes[ETHERNET + header..].to_vec();
    assert_eq!(checksum(source, destination, protocol, &transport), 0, "checksum: {bytes:02x?}");
    assert!(parsed.transport.is_some());
    (protocol, transport)
}

#[test]
fn a_denied_connection_is_reset() {
    let mut stage = stage();
    for server in [IpAddr::from(SERVER.v4), SERVER.v6.into()] {
        let tcp = |flags| Payload::tcp(40_000, 443, flags);
        // RFC 9293, 3.10.7.1: without ACK, the reset acknowledges all that was sent; with ACK it
        // takes its sequence number from there.
        let sent = 0x0102_0304_u32;
        let cases = [
            ("SYN", tcp(TcpFlags::SYN), None, sent + 1),
            ("SYN with data", tcp(TcpFlags::SYN).data(b"hello"), None, sent + 6),
            (
                "SYN with options",
                tcp(TcpFlags::SYN).data(&[1; 12]).with(12, &[0x80]),
                None,
                sent + 1,
            ),
            ("FIN with data", tcp(TcpFlags::FIN).data(b"hello"), None, sent + 6),
            ("no flags", tcp(TcpFlags(0)), None, sent),
            ("ACK", tcp(TcpFlags::ACK).data(b"hello"), Some(0x1112_1314), 0),
            ("SYN and ACK", tcp(TcpFlags::SYN_ACK), Some(0x1112_1314), 0),
        ];
        for (what, segment, sequence, acknowledged) in cases {
            let (protocol, reset) = answer(&mut stage, &from_sandbox(server, segment));
            assert_eq!((protocol, reset.len()), (ip_number::TCP.0, 20), "{what}");
            let word = |at: usize| {
                u32::from_be_bytes([reset[at], reset[at + 1], reset[at + 2], reset[at + 3]])
            };
            assert_eq!(word(0), 443 << 16 | 40_000, "{what}: ports");
            assert_eq!(word(4), sequence.unwrap_or(0), "{what}: sequence number");
            assert_eq!(word(8), acknowledged, "{what}: acknowledgement");
            let flags = if sequence.is_some() {
                TcpFlags::RST.0
            } else {
                TcpFlags::RST.0 | TcpFlags::ACK.0
            };
            assert_eq!(reset[12..16], [0x50, flags, 0, 0], "{what}: flags");
        }
    }
}

#[test]
fn everything_else_is_administratively_prohibited() {
    let mut stage = stage();
    for server in [IpAddr::from(SERVER.v4), SERVER.v6.into()] {
        for denied in [
            udp_to(server),
            from_sandbox(server, Payload::echo(server, false, 1, b"ping")),
            from_sandbox(server, Payload::raw(47, &[0; 100])),
            from_sandbox(server, Payload::udp(1, 2, &[7; 1000])),
        ] {
            let (protocol, message) = answer(&mut stage, &denied);
            let (icmp, kind, header) = match server {
                IpAddr::V4(_) => (ip_number::ICMP.0, [3, 13], 20), // RFC 1812, 5.2.7.1
                IpAddr::V6(_) => (ip_number::IPV6_ICMP.0, [1, 1], 40), // RFC 4443, 3.1
            };
            assert_eq!(protocol, icmp);
            assert_eq!(message[..2], kind);
            assert_eq!(message[4..8], [0; 4]);
            // It quotes the packet: its IP header and at least eight bytes, unchanged.
            let (quote, packet) = (&message[8..], denied.packet());
            assert!(quote.len() >= header + 8, "{} bytes are quoted", quote.len());
            assert_eq!(quote, &packet[..quote.len()]);
        }
    }
}

#[test]
fn an_answer_is_one_that_a_receiver_understands() {
    let mut stage = stage();
    let Action::Answer(bytes) = denied(&mut stage, &syn_to(SERVER.v4, 443).frame()) else {
        panic!("no answer")
    };
    let parsed = SlicedPacket::from_ethernet(&bytes).expect("a packet");
    assert!(matches!(parsed.transport, Some(TransportSlice::Tcp(tcp)) if tcp.rst()));
    let Action::Answer(bytes) = denied(&mut stage, &udp_to(SERVER.v6).frame()) else {
        panic!("no answer")
    };
    let parsed = SlicedPacket::from_ethernet(&bytes).expect("a packet");
    assert!(matches!(parsed.transport, Some(TransportSlice::Icmpv6(_))));
}

#[test]
fn some_denials_are_silent() {
    let mut stage = stage();
    let error = |to: IpAddr| from_sandbox(to, Payload::unreachable(to, &udp_to(to).packet()));
    for (what, frame) in [
        ("a reset", from_sandbox(SERVER.v4, Payload::tcp(1, 2, TcpFlags::RST)).frame()),
        ("a reset over IPv6", from_sandbox(SERVER.v6, Payload::tcp(1, 2, TcpFlags::RST)).frame()),
        ("an ICMP error", error(SERVER.v4.into()).frame()),
        ("an ICMPv6 error", error(SERVER.v6.into()).frame()),
        ("multicast", udp_to([224, 0, 0, 251]).frame()),
        ("broadcast", udp_to([255; 4]).frame()),
        ("IPv6 multicast", udp_to("ff02::fb".parse::<IpAddr>().expect("an address")).frame()),
        ("a spoofed address", Datagram::new(NEIGHBOUR.v4, SERVER.v4, Payload::syn(1, 2)).frame()),
        ("a spoofed MAC", syn_to(SERVER.v4, 80).frame().from_mac(NEIGHBOUR.mac)),
        ("a VLAN tag", syn_to(SERVER.v4, 80).frame().tagged(0x8100, 1)),
        ("half a frame", syn_to(SERVER.v4, 80).frame().cut(40)),
        ("behind extension headers", udp_to(SERVER.v6).behind(Extension::hop_by_hop()).frame()),
        ("to a group's MAC", udp_to(SERVER.v4).frame().to_mac([1, 0, 0x5e, 0, 0, 1])),
        ("a later fragment", udp_to(SERVER.v4).last(8).frame()),
        ("a routing header", udp_to(SERVER.v6).behind(Extension::routing()).frame()),
    ] {
        assert_eq!(denied(&mut stage, &frame), Action::Drop, "{what}");
    }
}

#[test]
fn every_kind_of_denial_by_a_rule_is_answered() {
    let mut stage = stage();
    let metadata = syn_to([169, 254, 169, 254], 80).frame();
    assert!(matches!(denied(&mut stage, &metadata), Action::Answer(_)), "the floor");
    stage.publish(r#"{"allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"]}"#);
    let web = syn_to(OTHER.v4, 443).frame();
    assert!(matches!(denied(&mut stage, &web), Action::Answer(_)), "no proxy");
    let mut stage =
        Stage::without_policy(Setting { deny_action: DenyAction::Reject, ..Setting::default() });
    assert!(matches!(denied(&mut stage, &web), Action::Answer(_)), "no policy");
}

#[test]
fn answers_are_limited_and_denials_are_not() {
    let mut stage = stage();
    let frame = udp_to(SERVER.v4).frame();
    let burst = REJECTS.burst_ns / REJECTS.interval_ns;
    let mut answered = 0;
    // Tokens come back while this runs, so it asks for more than it expects to be refused.
    for _ in 0..burst * 20 {
        match denied(&mut stage, &frame) {
            Action::Answer(_) => answered += 1,
            Action::Drop => {
                return assert!(answered >= burst, "the bucket was empty after {answered}");
            }
            Action::Pass => panic!("a denied frame passed"),
        }
    }
    panic!("{answered} answers without a limit");
}

#[test]
fn the_event_names_the_rule() {
    let mut stage =
        Stage::with(r#"{"denyOut": ["198.51.100.0/24", "203.0.113.10", "203.0.113.0/24"]}"#);
    let mut event_of = |frame: Frame| {
        let outcome = stage.kernel.from_sandbox(frame.bytes()).expect("the gate runs");
        outcome.event.expect("an event")
    };
    let event = event_of(syn_to(SERVER.v4, 443).frame());
    assert_eq!((event.reason, event.rule), (Reason::DenyOut as u8, 1));
    assert_eq!((event.source_port, event.destination_port, event.protocol), (40_000, 443, 6));
    assert_eq!(event.destination, SERVER.v4.to_ipv6_mapped().octets());
    assert_eq!(event.source, SANDBOX.v4.to_ipv6_mapped().octets());
    assert_eq!(event_of(udp_to([203, 0, 113, 11]).frame()).rule, 2);
    assert_eq!(event_of(udp_to([198, 51, 100, 1]).frame()).rule, 0);
}
