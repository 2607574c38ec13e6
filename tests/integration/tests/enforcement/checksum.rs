//! Checksums that a sandbox leaves to the device: the host writes them after the verdict, at an
//! offset that the sandbox chooses. Only the protocol's checksum field is permitted.

use policy_testbed::{
    packet_socket::{SOURCE_PORT, with_partial_checksum},
    packets::{IpPayload, TcpFlags},
    test_servers,
    testbed::{MARKER_ADDRESS, SharedTestbed, TestSandbox, parse_ip},
};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

const ALLOWED: &str = "2001:db8:1::1";
/// The offset of the IP header in a frame.
const IP_OFFSET: u16 = 14;
const TRANSPORT_OFFSET: u16 = IP_OFFSET + 40;
const DESTINATION_OFFSET: u16 = IP_OFFSET + 24;

fn sandbox_allowed_one_address() -> TestSandbox {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&[ALLOWED, MARKER_ADDRESS]);
    sandbox
}

fn udp_frame(sandbox: &TestSandbox) -> Vec<u8> {
    let payload = IpPayload::udp(SOURCE_PORT, test_servers::CLOSED_PORT, &sandbox.frame_token());
    sandbox.frame_builder().frame_payload(parse_ip(ALLOWED), payload)
}

fn tcp_frame(sandbox: &TestSandbox) -> Vec<u8> {
    let payload = IpPayload::tcp(SOURCE_PORT, test_servers::CLOSED_PORT, TcpFlags::SYN)
        .with_data(&sandbox.frame_token());
    sandbox.frame_builder().frame_payload(parse_ip(ALLOWED), payload)
}

/// Returns how many of the frames cross if the device must write the checksum at this offset.
fn count_crossing(sandbox: &TestSandbox, frame: &[u8], start: u16, place: u16) -> usize {
    let frame = with_partial_checksum(frame, start, place - start);
    sandbox.frames_crossing_through(&sandbox.open_virtio_packet_socket(), &[frame]).len()
}

#[test]
fn a_checksum_at_its_place_may_be_left_to_the_device() {
    let sandbox = sandbox_allowed_one_address();
    assert_eq!(
        count_crossing(&sandbox, &udp_frame(&sandbox), TRANSPORT_OFFSET, TRANSPORT_OFFSET + 6),
        1
    );
    assert_eq!(
        count_crossing(&sandbox, &tcp_frame(&sandbox), TRANSPORT_OFFSET, TRANSPORT_OFFSET + 16),
        1
    );
}

#[test]
fn a_checksum_over_what_was_judged_stops_the_frame() {
    let sandbox = sandbox_allowed_one_address();
    let (udp, tcp) = (udp_frame(&sandbox), tcp_frame(&sandbox));
    let bent = [
        (&udp, IP_OFFSET + 6, DESTINATION_OFFSET + 2, "a group of the destination"),
        (&udp, IP_OFFSET + 6, DESTINATION_OFFSET - 2, "a group of the source"),
        (&udp, TRANSPORT_OFFSET, TRANSPORT_OFFSET + 2, "UDP's destination port"),
        (&tcp, TRANSPORT_OFFSET, TRANSPORT_OFFSET + 2, "TCP's destination port"),
        (&tcp, TRANSPORT_OFFSET, TRANSPORT_OFFSET + 12, "TCP's flags"),
    ];
    for (frame, start, place, what) in bent {
        assert_eq!(count_crossing(&sandbox, frame, start, place), 0, "over {what}");
    }
    // Without a policy the frames cross, so the policy is what drops them.
    sandbox.delete();
    for (frame, start, place, what) in bent {
        assert_eq!(
            count_crossing(&sandbox, frame, start, place),
            1,
            "over {what}, without a policy"
        );
    }
}

/// Two adjacent bytes of an IPv4 address that are zero: the header checksum does not notice if they
/// become 0xffff.
#[test]
fn a_checksum_over_zeros_of_an_ipv4_address_stops_the_frame() {
    const TRANSPORT_OFFSET_V4: u16 = IP_OFFSET + 20;
    const ODD: &str = "1.0.0.1";
    const EVEN: &str = "8.8.0.0";
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&[ODD, EVEN, MARKER_ADDRESS]);
    let token = sandbox.frame_token();
    let udp_to = |address| {
        let payload = IpPayload::udp(SOURCE_PORT, test_servers::CLOSED_PORT, &token);
        sandbox.frame_builder().frame_payload(parse_ip(address), payload)
    };
    let (odd, even) = (udp_to(ODD), udp_to(EVEN));
    let bent = [
        (&odd, IP_OFFSET + 16, IP_OFFSET + 17, "two zeros at an odd offset"),
        (&even, IP_OFFSET + 16, IP_OFFSET + 18, "two zeros at an even offset"),
    ];
    for (frame, start, place, what) in bent {
        assert_eq!(count_crossing(&sandbox, frame, start, place), 0, "over {what}");
    }
    for frame in [&odd, &even] {
        let place = TRANSPORT_OFFSET_V4 + 6;
        assert_eq!(count_crossing(&sandbox, frame, TRANSPORT_OFFSET_V4, place), 1, "at its place");
    }
    // A tunnel leaves the checksum of the inner packet to the device.
    let tunnel = IpPayload::raw(47, &[&[0; 32][..], &token].concat());
    let tunnel = sandbox.frame_builder().frame_payload(parse_ip(ODD), tunnel);
    let inner = TRANSPORT_OFFSET_V4 + 4;
    assert_eq!(count_crossing(&sandbox, &tunnel, inner, inner + 16), 1, "inside a tunnel");
    sandbox.delete();
    for (frame, start, place, what) in bent {
        let crossing = count_crossing(&sandbox, frame, start, place);
        assert_eq!(crossing, 1, "over {what}, without a policy");
    }
}
