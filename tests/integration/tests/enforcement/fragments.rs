//! Fragments: an allowed datagram arrives complete, and no fragment of a denied one crosses.

use std::net::Ipv4Addr;

use policy_testbed::{
    packet_socket::SOURCE_PORT,
    packets::{ExtensionHeader, IpDatagram, IpPayload},
    probe, test_servers,
    testbed::{MARKER_ADDRESS, OrFail as _, SharedTestbed, TestSandbox, XDP_CONFIG, parse_ip},
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_config("");
static XDP_TESTBED: SharedTestbed = SharedTestbed::with_config(XDP_CONFIG);

const ALLOWED: [&str; 2] = ["8.8.8.8", "2001:db8:1::1"];
const DENIED: [&str; 2] = ["198.51.100.7", "2001:db8:2::1"];
/// The size of a fragment in bytes. The first one includes the UDP header.
const FRAGMENT_BYTES: usize = 64;
const UDP_HEADER_LEN: usize = 8;
const TCP_HEADER_LEN: usize = 20;

fn sandbox_for_fragments(stage: &SharedTestbed) -> TestSandbox {
    let sandbox = stage.add_sandbox();
    let allow = [ALLOWED[0], ALLOWED[1], MARKER_ADDRESS];
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allow }));
    sandbox
}

/// A UDP datagram with the token in each of its three fragments of [`FRAGMENT_BYTES`] bytes.
fn three_part_datagram(sandbox: &TestSandbox, to: &str, number: u32) -> IpDatagram {
    let token = sandbox.frame_token();
    let mut data = vec![b'.'; 3 * FRAGMENT_BYTES - UDP_HEADER_LEN];
    for at in [0, FRAGMENT_BYTES - UDP_HEADER_LEN, 2 * FRAGMENT_BYTES - UDP_HEADER_LEN] {
        data[at..at + token.len()].copy_from_slice(&token);
    }
    let payload = IpPayload::udp(SOURCE_PORT, test_servers::CLOSED_PORT, &data);
    sandbox.frame_builder().datagram_to(parse_ip(to), payload).with_identification(number)
}

/// The fragments in frames.
fn three_fragments(sandbox: &TestSandbox, to: &str, number: u32) -> Vec<Vec<u8>> {
    let whole = three_part_datagram(sandbox, to, number);
    let part =
        |i: usize| whole.clone().fragment(i * FRAGMENT_BYTES, (i + 1) * FRAGMENT_BYTES, i < 2);
    (0..3).map(|i| sandbox.frame_builder().frame_datagram(&part(i))).collect()
}

/// A TCP SYN with the token as its data.
fn syn_with_token(sandbox: &TestSandbox, to: &str, number: u32) -> IpDatagram {
    let payload =
        IpPayload::syn(SOURCE_PORT, test_servers::ECHO_PORT).with_data(&sandbox.frame_token());
    sandbox.frame_builder().datagram_to(parse_ip(to), payload).with_identification(number)
}

#[test]
fn an_allowed_datagram_of_eight_kilobytes_arrives_whole_and_comes_back() {
    for stage in [&TESTBED, &XDP_TESTBED] {
        let sandbox = sandbox_for_fragments(stage);
        let bytes: Vec<u8> = (0..8192_u32).map(|i| (i % 251) as u8).collect();
        for to in ALLOWED {
            let socket = sandbox.connect_echo_udp(to);
            probe::echo_datagram(&socket, &bytes).or_fail(to);
        }
    }
}

#[test]
fn fragments_of_an_allowed_datagram_cross() {
    let sandbox = sandbox_for_fragments(&TESTBED);
    for to in ALLOWED {
        assert_eq!(sandbox.frames_crossing(&three_fragments(&sandbox, to, 1)).len(), 3, "{to}");
    }
}

#[test]
fn no_fragment_of_a_denied_datagram_crosses() {
    for stage in [&TESTBED, &XDP_TESTBED] {
        let sandbox = sandbox_for_fragments(stage);
        for to in DENIED {
            assert!(sandbox.frames_crossing(&three_fragments(&sandbox, to, 2)).is_empty(), "{to}");
            let mut backwards = three_fragments(&sandbox, to, 3);
            backwards.reverse();
            assert!(sandbox.frames_crossing(&backwards).is_empty(), "{to}");
        }
        let counters = &sandbox.status()["counters"];
        assert_eq!(counters["deny_out"]["packets"], 4, "first fragments: {counters}");
        assert_eq!(counters["fragment"]["packets"], 8, "later ones: {counters}");
    }
}

#[test]
fn a_later_fragment_without_its_first_does_not_cross() {
    let sandbox = sandbox_for_fragments(&TESTBED);
    for to in ALLOWED {
        let frames = three_fragments(&sandbox, to, 4);
        assert!(sandbox.frames_crossing(&frames[1..]).is_empty(), "{to}");
        // The first fragment of another datagram does not count, whether it differs in the
        // identification or in the address.
        let first = three_fragments(&sandbox, to, 5).remove(0);
        let frames = [vec![first], frames[1..].to_vec()].concat();
        assert_eq!(sandbox.frames_crossing(&frames).len(), 1, "{to}");
    }
}

#[test]
fn a_first_fragment_that_hides_its_header_does_not_cross() {
    let sandbox = sandbox_for_fragments(&TESTBED);
    for (number, to) in (10..).zip(ALLOWED) {
        let whole = syn_with_token(&sandbox, to, number);
        let frames = [whole.clone().first_fragment(16), whole.last_fragment(16)]
            .map(|it| sandbox.frame_builder().frame_datagram(&it));
        assert!(sandbox.frames_crossing(&frames).is_empty(), "{to}");
    }
    assert_eq!(sandbox.status()["counters"]["fragment"]["packets"], 4);
}

#[test]
fn a_fragment_that_would_overwrite_the_header_does_not_cross() {
    let sandbox = sandbox_for_fragments(&TESTBED);
    for (number, to) in (20..).zip(ALLOWED) {
        let whole = syn_with_token(&sandbox, to, number);
        let end = (TCP_HEADER_LEN + sandbox.frame_token().len()) / 8 * 8;
        let overlapping = whole.clone().last_fragment(8);
        let frames = [whole.first_fragment(end), overlapping]
            .map(|it| sandbox.frame_builder().frame_datagram(&it));
        let seen = sandbox.frames_crossing(&frames);
        assert!(!seen.contains(&frames[1]) && seen.len() <= 1, "{to}: {seen:?}");
        assert_eq!(sandbox.status()["counters"]["fragment"]["packets"], number - 19);
    }
}

#[test]
fn fragments_of_fragments_do_not_cross() {
    let sandbox = sandbox_for_fragments(&TESTBED);
    let nested = three_part_datagram(&sandbox, ALLOWED[1], 30)
        .with_extension(ExtensionHeader::fragment(0, true, 30))
        .with_extension(ExtensionHeader::fragment(0, true, 31));
    assert!(sandbox.frames_crossing(&[sandbox.frame_builder().frame_datagram(&nested)]).is_empty());
}

#[test]
fn a_spoofed_fragment_does_not_cross() {
    let sandbox = sandbox_for_fragments(&TESTBED);
    let stranger = Ipv4Addr::new(10, 11, 240, 2).into();
    let mut spoofed = three_part_datagram(&sandbox, ALLOWED[0], 40);
    spoofed.source = stranger;
    let frames =
        [spoofed.clone().first_fragment(FRAGMENT_BYTES), spoofed.last_fragment(FRAGMENT_BYTES)];
    let frames = frames.map(|it| sandbox.frame_builder().frame_datagram(&it));
    assert!(sandbox.frames_crossing(&frames).is_empty());
}

/// An allowed first fragment does not allow later ones after the policy has changed.
#[test]
fn a_tightening_applies_to_the_next_fragment() {
    let sandbox = sandbox_for_fragments(&TESTBED);
    for (number, to) in (50..).zip(ALLOWED) {
        sandbox
            .apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [to, MARKER_ADDRESS] }));
        let frames = three_fragments(&sandbox, to, number);
        assert_eq!(sandbox.frames_crossing(&frames[..2]).len(), 2, "{to}: before");
        sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [MARKER_ADDRESS] }));
        assert!(sandbox.frames_crossing(&frames[2..]).is_empty(), "{to}: after the tightening");
    }
}
