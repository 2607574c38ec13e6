//! A sandbox behind a real tap device. The test is the guest: it writes the frames of a virtual
//! machine's network card and reads what comes back, with and without virtio headers.

use etherparse::{
    ether_type::ARP,
    ip_number::{ICMP, IPV6_ICMP},
};
use policy_tests::{
    packet::{Payload, TcpFlags, arp::Arp},
    server,
    stage::{OrFail as _, Shared, TOKEN, TapGuest, ip},
    wire::{FROM_PORT, Sender, View, carries},
    world::tap::{VIRTIO_HEADER, Virtio},
};

static STAGE: Shared = Shared::with("");
static XDP: Shared = Shared::with("[dataplane]\nmode = \"xdp\"");

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the pseudo header's sum only.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCP_V4: u8 = 1;
const BOTH: [Virtio; 2] = [Virtio::Off, Virtio::On];

#[test]
fn the_gateway_answers_arp() {
    for virtio in BOTH {
        let guest = TapGuest::on(&STAGE, virtio);
        let gateway = guest.tap.identity.gateway_v4();
        let question = guest.me.arp(Arp::request((guest.me.mac, guest.me.v4), gateway));
        guest.tap.send(&question).or_fail("asking");
        let mac = guest.tap.identity.gateway_mac();
        let is_answer = |frame: &[u8]| {
            frame.get(12..14) == Some(&ARP.0.to_be_bytes()) && frame.get(22..28) == Some(&mac)
        };
        guest.tap.receive("an ARP answer", is_answer).or_fail("listening");
    }
}

#[test]
fn allowed_datagrams_are_answered_and_denied_ones_prohibited() {
    for virtio in BOTH {
        let guest = TapGuest::on(&STAGE, virtio);
        guest.settle();
        for address in ["8.8.8.8", "2001:db8:1::1"] {
            let frame = guest.me.udp(ip(address), server::ECHO, TOKEN);
            let (_, answer) = guest.ask(&frame, address);
            assert!(carries(&answer, TOKEN), "{address}");
        }
        for address in ["8.8.8.9", "2001:db8:2::1"] {
            let frame = guest.me.udp(ip(address), server::ECHO, TOKEN);
            let (_, answer) = guest.ask(&frame, address);
            let view = View::of(&answer).or_fail("an IP packet");
            let icmp = [ICMP.0, IPV6_ICMP.0].contains(&view.protocol);
            assert!(icmp && view.is_sound(), "{address}: {view:?}");
        }
    }
}

#[test]
fn a_denied_connection_is_reset_with_a_checksum_that_counts() {
    for virtio in BOTH {
        let guest = TapGuest::on(&STAGE, virtio);
        guest.settle();
        for address in ["8.8.8.9", "2001:db8:2::1"] {
            let opening = guest.me.syn(ip(address), server::ECHO);
            let (header, answer) = guest.ask(&opening, address);
            is_reset(header, &answer);
        }
    }
}

#[test]
fn a_denied_connection_whose_checksum_was_left_to_the_host_is_reset() {
    let guest = TapGuest::on(&STAGE, Virtio::On);
    guest.settle();
    let (header, frame) = unsummed(guest.me.syn(ip("8.8.8.9"), server::ECHO));
    guest.tap.send_with(header, &frame).or_fail("sending");
    let from = |frame: &[u8]| View::of(frame).is_some_and(|view| view.source == ip("8.8.8.9"));
    let (header, answer) = guest.tap.receive("a reset", from).or_fail("listening");
    is_reset(header, &answer);
}

#[test]
fn spoofed_frames_do_not_cross() {
    for (stage, virtio) in [(&STAGE, Virtio::Off), (&STAGE, Virtio::On), (&XDP, Virtio::Off)] {
        let guest = TapGuest::on(stage, virtio);
        let mut stranger = guest.me;
        stranger.mac = [2, 0, 0, 0, 0, 9];
        let to = ip("8.8.8.8");
        guest.tap.send(&stranger.udp(to, server::CLOSED, TOKEN)).or_fail("sending");
        stranger = Sender { v4: [10, 11, 230, 2].into(), ..guest.me };
        guest.tap.send(&stranger.udp(to, server::CLOSED, TOKEN)).or_fail("sending");
        let whole = guest.me.udp(to, server::CLOSED, TOKEN);
        for length in [14, 15, 33, 34, 41, whole.len() - 1] {
            guest.tap.send(&whole[..length]).or_fail("sending");
        }
        assert!(guest.crossed().is_empty());
        assert_eq!((guest.counted("spoofed_mac"), guest.counted("spoofed_ip")), (1, 1));
        assert_eq!(guest.counted("malformed"), 6);
    }
}

/// With virtio the guest chooses how much of a large frame the kernel puts in one piece: here the
/// Ethernet header only.
#[test]
fn a_super_packet_is_judged_although_its_headers_lie_apart() {
    let guest = TapGuest::on(&STAGE, Virtio::On);
    let segment = |to| super_packet(&guest.me, to, 14);
    let (header, frame) = segment("8.8.8.9");
    guest.tap.send_with(header, &frame).or_fail("sending a super-packet");
    assert!(guest.crossed().is_empty());
    let denied = guest.counted("deny_out");
    assert!(denied >= 6, "it counts as the {denied} packets that it stands for");

    let (header, frame) = segment("8.8.8.8");
    guest.tap.send_with(header, &frame).or_fail("sending a super-packet");
    assert!(!guest.crossed().is_empty());
}

#[test]
fn a_super_packet_of_a_stranger_does_not_cross() {
    let guest = TapGuest::on(&STAGE, Virtio::On);
    let stranger = Sender { v4: [10, 11, 231, 2].into(), ..guest.me };
    for linear in [14, 34, 54] {
        let (header, frame) = super_packet(&stranger, "8.8.8.8", linear);
        guest.tap.send_with(header, &frame).or_fail("sending a super-packet");
    }
    assert!(guest.crossed().is_empty());
    assert!(guest.counted("spoofed_ip") >= 3);
}

/// 8 KB of TCP in one frame, to be cut into segments of 1400 bytes by the host; `linear` bytes of
/// it in one piece.
fn super_packet(me: &Sender, to: &str, linear: u16) -> ([u8; VIRTIO_HEADER], Vec<u8>) {
    let data = TOKEN.repeat(8192 / TOKEN.len());
    let segment = Payload::tcp(FROM_PORT, server::ECHO, TcpFlags::ACK).data(&data);
    let (mut header, frame) = unsummed(me.send(ip(to), segment));
    header[1] = GSO_TCP_V4;
    header[2..4].copy_from_slice(&linear.to_ne_bytes());
    header[4..6].copy_from_slice(&1400_u16.to_ne_bytes());
    (header, frame)
}

/// A TCP frame over IPv4 whose checksum is left to the host, and the virtio header that says so.
fn unsummed(mut frame: Vec<u8>) -> ([u8; VIRTIO_HEADER], Vec<u8>) {
    let view = View::of(&frame).or_fail("an IP packet");
    assert!(view.source.is_ipv4());
    let sum = view.pseudo_sum();
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    let mut header = [0; VIRTIO_HEADER];
    header[0] = NEEDS_CHECKSUM;
    header[6..8].copy_from_slice(&34_u16.to_ne_bytes());
    header[8..10].copy_from_slice(&16_u16.to_ne_bytes());
    (header, frame)
}

/// A reset that a guest would take for one: its checksum is right, or left to the guest and right
/// as far as that goes.
fn is_reset(header: [u8; VIRTIO_HEADER], answer: &[u8]) {
    let view = View::of(answer).or_fail("an IP packet");
    let flags = view.payload.get(13).copied().unwrap_or(0);
    assert_eq!(flags, TcpFlags::RST.0 | TcpFlags::ACK.0, "{view:?}");
    let sent = Payload::tcp(0, 0, TcpFlags::SYN).bytes;
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
    let (sequence, acknowledged) = (number(&sent[4..]), number(&view.payload[8..]));
    assert_eq!(acknowledged, sequence.wrapping_add(1), "it acknowledges the SYN");
    if header[0] & NEEDS_CHECKSUM == 0 {
        assert!(view.is_sound());
    } else {
        assert_eq!(view.payload[16..18], view.pseudo_sum().to_be_bytes());
    }
}
