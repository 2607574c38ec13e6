//! A sandbox behind a real tap device. The test is the guest: it writes the frames of a virtual
//! machine's network card and reads the replies, with and without virtio headers.

use etherparse::{
    ether_type::ARP,
    ip_number::{ICMP, IPV6_ICMP},
};
use policy_testbed::{
    network::tap_device::{VIRTIO_HEADER_LEN, VirtioHeader},
    packet_socket::{FrameBuilder, PacketView, SOURCE_PORT, contains_bytes},
    packets::{IpPayload, TcpFlags, arp_packet::ArpPacket},
    test_servers,
    testbed::{OrFail as _, SharedTestbed, TAP_FRAME_TOKEN, TapSandbox, XDP_CONFIG, parse_ip},
};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");
static XDP_TESTBED: SharedTestbed = SharedTestbed::with_config(XDP_CONFIG);

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field contains only the sum of the pseudo header.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCP_V4: u8 = 1;
const VIRTIO_MODES: [VirtioHeader; 2] = [VirtioHeader::Off, VirtioHeader::On];

#[test]
fn the_gateway_answers_arp() {
    for virtio in VIRTIO_MODES {
        let guest = TapSandbox::new(&TESTBED, virtio);
        let gateway = guest.device.addressing.gateway_v4();
        let question = guest
            .frame_builder
            .arp(ArpPacket::request((guest.frame_builder.mac, guest.frame_builder.v4), gateway));
        guest.device.send(&question).or_fail("asking");
        let mac = guest.device.addressing.gateway_mac();
        let is_answer = |frame: &[u8]| {
            frame.get(12..14) == Some(&ARP.0.to_be_bytes()) && frame.get(22..28) == Some(&mac)
        };
        guest.device.receive("an ARP answer", is_answer).or_fail("listening");
    }
}

#[test]
fn allowed_datagrams_are_answered_and_denied_ones_prohibited() {
    for virtio in VIRTIO_MODES {
        let guest = TapSandbox::new(&TESTBED, virtio);
        guest.pin_neighbors();
        for address in ["8.8.8.8", "2001:db8:1::1"] {
            let frame = guest.frame_builder.udp(
                parse_ip(address),
                test_servers::ECHO_PORT,
                TAP_FRAME_TOKEN,
            );
            let (_, answer) = guest.exchange(&frame, address);
            assert!(contains_bytes(&answer, TAP_FRAME_TOKEN), "{address}");
        }
        for address in ["8.8.8.9", "2001:db8:2::1"] {
            let frame = guest.frame_builder.udp(
                parse_ip(address),
                test_servers::ECHO_PORT,
                TAP_FRAME_TOKEN,
            );
            let (_, answer) = guest.exchange(&frame, address);
            let view = PacketView::parse(&answer).or_fail("an IP packet");
            let icmp = [ICMP.0, IPV6_ICMP.0].contains(&view.protocol);
            assert!(icmp && view.has_valid_checksum(), "{address}: {view:?}");
        }
    }
}

#[test]
fn a_denied_connection_is_reset_with_a_checksum_that_counts() {
    for virtio in VIRTIO_MODES {
        let guest = TapSandbox::new(&TESTBED, virtio);
        guest.pin_neighbors();
        for address in ["8.8.8.9", "2001:db8:2::1"] {
            let opening = guest.frame_builder.syn(parse_ip(address), test_servers::ECHO_PORT);
            let (header, answer) = guest.exchange(&opening, address);
            assert_reset(header, &answer);
        }
    }
}

#[test]
fn a_denied_connection_whose_checksum_was_left_to_the_host_is_reset() {
    let guest = TapSandbox::new(&TESTBED, VirtioHeader::On);
    guest.pin_neighbors();
    let (header, frame) = with_offloaded_checksum(
        guest.frame_builder.syn(parse_ip("8.8.8.9"), test_servers::ECHO_PORT),
    );
    guest.device.send_with_header(header, &frame).or_fail("sending");
    let from = |frame: &[u8]| {
        PacketView::parse(frame).is_some_and(|view| view.source == parse_ip("8.8.8.9"))
    };
    let (header, answer) = guest.device.receive("a reset", from).or_fail("listening");
    assert_reset(header, &answer);
}

#[test]
fn spoofed_frames_do_not_cross() {
    for (stage, virtio) in [
        (&TESTBED, VirtioHeader::Off),
        (&TESTBED, VirtioHeader::On),
        (&XDP_TESTBED, VirtioHeader::Off),
    ] {
        let guest = TapSandbox::new(stage, virtio);
        let mut stranger = guest.frame_builder;
        stranger.mac = [2, 0, 0, 0, 0, 9];
        let to = parse_ip("8.8.8.8");
        guest
            .device
            .send(&stranger.udp(to, test_servers::CLOSED_PORT, TAP_FRAME_TOKEN))
            .or_fail("sending");
        stranger = FrameBuilder { v4: [10, 11, 230, 2].into(), ..guest.frame_builder };
        guest
            .device
            .send(&stranger.udp(to, test_servers::CLOSED_PORT, TAP_FRAME_TOKEN))
            .or_fail("sending");
        let whole = guest.frame_builder.udp(to, test_servers::CLOSED_PORT, TAP_FRAME_TOKEN);
        for length in [14, 15, 33, 34, 41, whole.len() - 1] {
            guest.device.send(&whole[..length]).or_fail("sending");
        }
        assert!(guest.frames_crossed().is_empty());
        assert_eq!((guest.packet_count("spoofed_mac"), guest.packet_count("spoofed_ip")), (1, 1));
        assert_eq!(guest.packet_count("malformed"), 6);
    }
}

/// With virtio, the guest chooses how much of a large frame is in the linear part of the kernel's
/// buffer. Here that is the Ethernet header only.
#[test]
fn a_super_packet_is_judged_although_its_headers_lie_apart() {
    let guest = TapSandbox::new(&TESTBED, VirtioHeader::On);
    let segment = |to| super_packet(&guest.frame_builder, to, 14);
    let (header, frame) = segment("8.8.8.9");
    guest.device.send_with_header(header, &frame).or_fail("sending a super-packet");
    assert!(guest.frames_crossed().is_empty());
    let denied = guest.packet_count("deny_out");
    assert!(denied >= 6, "it counts as the {denied} packets that it stands for");

    let (header, frame) = segment("8.8.8.8");
    guest.device.send_with_header(header, &frame).or_fail("sending a super-packet");
    assert!(!guest.frames_crossed().is_empty());
}

#[test]
fn a_super_packet_with_a_spoofed_source_does_not_cross() {
    let guest = TapSandbox::new(&TESTBED, VirtioHeader::On);
    let stranger = FrameBuilder { v4: [10, 11, 231, 2].into(), ..guest.frame_builder };
    for linear in [14, 34, 54] {
        let (header, frame) = super_packet(&stranger, "8.8.8.8", linear);
        guest.device.send_with_header(header, &frame).or_fail("sending a super-packet");
    }
    assert!(guest.frames_crossed().is_empty());
    assert!(guest.packet_count("spoofed_ip") >= 3);
}

/// Splitting 64 KiB into segments of one byte costs the host's kernel 45 ms.
#[test]
fn a_super_packet_of_tiny_segments_is_malformed_and_counts_once() {
    let guest = TapSandbox::new(&TESTBED, VirtioHeader::On);
    for size in [1, 8, 63_u16] {
        let (mut header, frame) = super_packet(&guest.frame_builder, "8.8.8.8", 54);
        header[4..6].copy_from_slice(&size.to_ne_bytes());
        guest.device.send_with_header(header, &frame).or_fail("sending a super-packet");
    }
    assert!(guest.frames_crossed().is_empty());
    assert_eq!(guest.packet_count("malformed"), 3);

    let (mut header, frame) = super_packet(&guest.frame_builder, "8.8.8.8", 54);
    header[4..6].copy_from_slice(&64_u16.to_ne_bytes());
    guest.device.send_with_header(header, &frame).or_fail("sending a super-packet");
    assert!(!guest.frames_crossed().is_empty());
}

/// 8 KB of TCP in one frame, which the host must split into segments of 1400 bytes. `linear` is the
/// length of the linear part in bytes.
fn super_packet(me: &FrameBuilder, to: &str, linear: u16) -> ([u8; VIRTIO_HEADER_LEN], Vec<u8>) {
    let data = TAP_FRAME_TOKEN.repeat(8192 / TAP_FRAME_TOKEN.len());
    let segment =
        IpPayload::tcp(SOURCE_PORT, test_servers::ECHO_PORT, TcpFlags::ACK).with_data(&data);
    let (mut header, frame) = with_offloaded_checksum(me.frame_payload(parse_ip(to), segment));
    header[1] = GSO_TCP_V4;
    header[2..4].copy_from_slice(&linear.to_ne_bytes());
    header[4..6].copy_from_slice(&1400_u16.to_ne_bytes());
    (header, frame)
}

/// A TCP frame over IPv4 whose checksum is left to the host, with the matching virtio header.
fn with_offloaded_checksum(mut frame: Vec<u8>) -> ([u8; VIRTIO_HEADER_LEN], Vec<u8>) {
    let view = PacketView::parse(&frame).or_fail("an IP packet");
    assert!(view.source.is_ipv4());
    let sum = view.pseudo_header_sum();
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    let mut header = [0; VIRTIO_HEADER_LEN];
    header[0] = NEEDS_CHECKSUM;
    header[6..8].copy_from_slice(&34_u16.to_ne_bytes());
    header[8..10].copy_from_slice(&16_u16.to_ne_bytes());
    (header, frame)
}

/// Asserts that a guest would accept the reply as a reset: its checksum is valid, or it is left to
/// the guest and the partial sum is valid.
fn assert_reset(header: [u8; VIRTIO_HEADER_LEN], answer: &[u8]) {
    let view = PacketView::parse(answer).or_fail("an IP packet");
    let flags = view.payload.get(13).copied().unwrap_or(0);
    assert_eq!(flags, TcpFlags::RST.0 | TcpFlags::ACK.0, "{view:?}");
    let sent = IpPayload::tcp(0, 0, TcpFlags::SYN).bytes;
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
    let (sequence, acknowledged) = (number(&sent[4..]), number(&view.payload[8..]));
    assert_eq!(acknowledged, sequence.wrapping_add(1), "it acknowledges the SYN");
    if header[0] & NEEDS_CHECKSUM == 0 {
        assert!(view.has_valid_checksum());
    } else {
        assert_eq!(view.payload[16..18], view.pseudo_header_sum().to_be_bytes());
    }
}
