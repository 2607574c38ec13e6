//! The replies to denied packets: the bytes of resets and of "administratively prohibited".

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice, ip_number};
use policy_agent::dataplane::DenyAction;
use policy_common::{rate_limit::REJECT_RATE_LIMIT, reason::Reason};
use policy_integration::program_runner::FrameAction;
use policy_testbed::packets::{
    ETHERNET_HEADER_LEN, EthernetFrame, ExtensionHeader, IpDatagram, IpPayload, TcpFlags,
    test_hosts::{GATEWAY, NEIGHBOR, OTHER_SERVER, SANDBOX, SERVER},
    transport_checksum,
};

use super::datapath_case::{
    DENY_ALL, DatapathCase, DatapathSettings, datagram_from_sandbox, syn_from_sandbox,
    udp_from_sandbox,
};

fn rejecting_case() -> DatapathCase {
    DatapathCase::with_settings(
        DENY_ALL,
        DatapathSettings { deny_action: DenyAction::Reject, ..DatapathSettings::default() },
    )
}

/// Returns the kernel's action on a frame that must be denied.
fn judge_denied(stage: &mut DatapathCase, frame: &EthernetFrame) -> FrameAction {
    let outcome = stage.programs.from_sandbox(frame.bytes()).expect("the gate runs");
    assert!(outcome.reason.is_some_and(|reason| !reason.passes()), "{outcome:?}");
    outcome.action
}

/// Checks what all replies have in common: the reply goes back to the sender, its source is the
/// frame's destination, and its checksums are correct. Returns its protocol and its transport
/// bytes.
fn reject_reply(stage: &mut DatapathCase, datagram: &IpDatagram) -> (u8, Vec<u8>) {
    let sent = datagram.to_frame();
    let FrameAction::Reply(bytes) = judge_denied(stage, &sent) else {
        panic!("no answer to {sent:?}")
    };
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
    let transport = bytes[ETHERNET_HEADER_LEN + header..].to_vec();
    assert_eq!(
        transport_checksum(source, destination, protocol, &transport),
        0,
        "checksum: {bytes:02x?}"
    );
    assert!(parsed.transport.is_some());
    (protocol, transport)
}

#[test]
fn a_denied_connection_is_reset() {
    let mut stage = rejecting_case();
    for server in [IpAddr::from(SERVER.v4), SERVER.v6.into()] {
        let tcp = |flags| IpPayload::tcp(40_000, 443, flags);
        // RFC 9293, 3.10.7.1: without ACK, the reset acknowledges everything that was sent. With
        // ACK, the acknowledged number becomes its sequence number.
        let sent = 0x0102_0304_u32;
        let cases = [
            ("SYN", tcp(TcpFlags::SYN), None, sent + 1),
            ("SYN with data", tcp(TcpFlags::SYN).with_data(b"hello"), None, sent + 6),
            (
                "SYN with options",
                tcp(TcpFlags::SYN).with_data(&[1; 12]).with_bytes_at(12, &[0x80]),
                None,
                sent + 1,
            ),
            ("FIN with data", tcp(TcpFlags::FIN).with_data(b"hello"), None, sent + 6),
            ("no flags", tcp(TcpFlags(0)), None, sent),
            ("ACK", tcp(TcpFlags::ACK).with_data(b"hello"), Some(0x1112_1314), 0),
            ("SYN and ACK", tcp(TcpFlags::SYN_ACK), Some(0x1112_1314), 0),
        ];
        for (what, segment, sequence, acknowledged) in cases {
            let (protocol, reset) =
                reject_reply(&mut stage, &datagram_from_sandbox(server, segment));
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
    let mut stage = rejecting_case();
    for server in [IpAddr::from(SERVER.v4), SERVER.v6.into()] {
        for denied in [
            udp_from_sandbox(server),
            datagram_from_sandbox(server, IpPayload::icmp_echo(server, false, 1, b"ping")),
            datagram_from_sandbox(server, IpPayload::raw(47, &[0; 100])),
            datagram_from_sandbox(server, IpPayload::udp(1, 2, &[7; 1000])),
        ] {
            let (protocol, message) = reject_reply(&mut stage, &denied);
            let (icmp, kind, header) = match server {
                IpAddr::V4(_) => (ip_number::ICMP.0, [3, 13], 20), // RFC 1812, 5.2.7.1
                IpAddr::V6(_) => (ip_number::IPV6_ICMP.0, [1, 1], 40), // RFC 4443, 3.1
            };
            assert_eq!(protocol, icmp);
            assert_eq!(message[..2], kind);
            assert_eq!(message[4..8], [0; 4]);
            // It quotes the packet: its IP header and at least eight bytes, unchanged.
            let (quote, packet) = (&message[8..], denied.to_packet());
            assert!(quote.len() >= header + 8, "{} bytes are quoted", quote.len());
            assert_eq!(quote, &packet[..quote.len()]);
        }
    }
}

#[test]
fn an_answer_is_one_that_a_receiver_understands() {
    let mut stage = rejecting_case();
    let FrameAction::Reply(bytes) =
        judge_denied(&mut stage, &syn_from_sandbox(SERVER.v4, 443).to_frame())
    else {
        panic!("no answer")
    };
    let parsed = SlicedPacket::from_ethernet(&bytes).expect("a packet");
    assert!(matches!(parsed.transport, Some(TransportSlice::Tcp(tcp)) if tcp.rst()));
    let FrameAction::Reply(bytes) =
        judge_denied(&mut stage, &udp_from_sandbox(SERVER.v6).to_frame())
    else {
        panic!("no answer")
    };
    let parsed = SlicedPacket::from_ethernet(&bytes).expect("a packet");
    assert!(matches!(parsed.transport, Some(TransportSlice::Icmpv6(_))));
}

#[test]
fn some_denials_are_silent() {
    let mut stage = rejecting_case();
    let error = |to: IpAddr| {
        datagram_from_sandbox(
            to,
            IpPayload::icmp_unreachable(to, &udp_from_sandbox(to).to_packet()),
        )
    };
    for (what, frame) in [
        (
            "a reset",
            datagram_from_sandbox(SERVER.v4, IpPayload::tcp(1, 2, TcpFlags::RST)).to_frame(),
        ),
        (
            "a reset over IPv6",
            datagram_from_sandbox(SERVER.v6, IpPayload::tcp(1, 2, TcpFlags::RST)).to_frame(),
        ),
        ("an ICMP error", error(SERVER.v4.into()).to_frame()),
        ("an ICMPv6 error", error(SERVER.v6.into()).to_frame()),
        ("multicast", udp_from_sandbox([224, 0, 0, 251]).to_frame()),
        ("broadcast", udp_from_sandbox([255; 4]).to_frame()),
        (
            "IPv6 multicast",
            udp_from_sandbox("ff02::fb".parse::<IpAddr>().expect("an address")).to_frame(),
        ),
        (
            "a spoofed address",
            IpDatagram::new(NEIGHBOR.v4, SERVER.v4, IpPayload::syn(1, 2)).to_frame(),
        ),
        ("a spoofed MAC", syn_from_sandbox(SERVER.v4, 80).to_frame().with_source(NEIGHBOR.mac)),
        ("a VLAN tag", syn_from_sandbox(SERVER.v4, 80).to_frame().with_vlan_tag(0x8100, 1)),
        ("half a frame", syn_from_sandbox(SERVER.v4, 80).to_frame().truncated(40)),
        (
            "behind extension headers",
            udp_from_sandbox(SERVER.v6).with_extension(ExtensionHeader::hop_by_hop()).to_frame(),
        ),
        (
            "to a group's MAC",
            udp_from_sandbox(SERVER.v4).to_frame().with_destination([1, 0, 0x5e, 0, 0, 1]),
        ),
        ("a later fragment", udp_from_sandbox(SERVER.v4).last_fragment(8).to_frame()),
        (
            "a routing header",
            udp_from_sandbox(SERVER.v6).with_extension(ExtensionHeader::routing()).to_frame(),
        ),
    ] {
        assert_eq!(judge_denied(&mut stage, &frame), FrameAction::Drop, "{what}");
    }
}

#[test]
fn every_kind_of_denial_by_a_rule_is_answered() {
    let mut stage = rejecting_case();
    let metadata = syn_from_sandbox([169, 254, 169, 254], 80).to_frame();
    assert!(matches!(judge_denied(&mut stage, &metadata), FrameAction::Reply(_)), "the floor");
    stage.publish(r#"{"allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"]}"#);
    let web = syn_from_sandbox(OTHER_SERVER.v4, 443).to_frame();
    assert!(matches!(judge_denied(&mut stage, &web), FrameAction::Reply(_)), "no proxy");
    let mut stage = DatapathCase::without_policy(DatapathSettings {
        deny_action: DenyAction::Reject,
        ..DatapathSettings::default()
    });
    assert!(matches!(judge_denied(&mut stage, &web), FrameAction::Reply(_)), "no policy");
}

#[test]
fn answers_are_limited_and_denials_are_not() {
    let mut stage = rejecting_case();
    let frame = udp_from_sandbox(SERVER.v4).to_frame();
    let burst = REJECT_RATE_LIMIT.burst_ns / REJECT_RATE_LIMIT.interval_ns;
    let mut answered = 0;
    // Tokens are refilled during the loop, so it sends more packets than the number of replies that
    // it expects.
    for _ in 0..burst * 20 {
        match judge_denied(&mut stage, &frame) {
            FrameAction::Reply(_) => answered += 1,
            FrameAction::Drop => {
                return assert!(answered >= burst, "the bucket was empty after {answered}");
            }
            FrameAction::Pass => panic!("a denied frame passed"),
        }
    }
    panic!("{answered} answers without a limit");
}

#[test]
fn the_event_names_the_rule() {
    let mut stage = DatapathCase::with_network(
        r#"{"denyOut": ["198.51.100.0/24", "203.0.113.10", "203.0.113.0/24"]}"#,
    );
    let mut event_of = |frame: EthernetFrame| {
        let outcome = stage.programs.from_sandbox(frame.bytes()).expect("the gate runs");
        outcome.event.expect("an event")
    };
    let event = event_of(syn_from_sandbox(SERVER.v4, 443).to_frame());
    assert_eq!((event.reason_code, event.rule_index), (Reason::DenyOut as u8, 1));
    assert_eq!((event.source_port, event.destination_port, event.protocol), (40_000, 443, 6));
    assert_eq!(event.destination_address, SERVER.v4.to_ipv6_mapped().octets());
    assert_eq!(event.source_address, SANDBOX.v4.to_ipv6_mapped().octets());
    assert_eq!(event_of(udp_from_sandbox([203, 0, 113, 11]).to_frame()).rule_index, 2);
    assert_eq!(event_of(udp_from_sandbox([198, 51, 100, 1]).to_frame()).rule_index, 0);
}
