//! Fragments: a datagram that is allowed arrives whole, and none of one that is denied crosses.

use std::net::Ipv4Addr;

use policy_tests::{
    packet::{Datagram, Extension, Payload},
    probe, server,
    stage::{Guest, MARKER_TO, OrFail as _, Shared, ip},
    wire::FROM_PORT,
};
use serde_json::json;

static STAGE: Shared = Shared::with("");
static XDP: Shared = Shared::with("[dataplane]\nmode = \"xdp\"");

const ALLOWED: [&str; 2] = ["8.8.8.8", "2001:db8:1::1"];
const DENIED: [&str; 2] = ["198.51.100.7", "2001:db8:2::1"];
/// Bytes of a datagram's fragment; in the first the UDP header is among them.
const PART: usize = 64;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

fn sandbox(stage: &Shared) -> Guest {
    let sandbox = stage.sandbox();
    let allow = [ALLOWED[0], ALLOWED[1], MARKER_TO];
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allow }));
    sandbox
}

/// A UDP datagram that holds the token in each of its three fragments of [`PART`] bytes.
fn datagram(sandbox: &Guest, to: &str, number: u32) -> Datagram {
    let token = sandbox.token();
    let mut data = vec![b'.'; 3 * PART - UDP_HEADER];
    for at in [0, PART - UDP_HEADER, 2 * PART - UDP_HEADER] {
        data[at..at + token.len()].copy_from_slice(&token);
    }
    let payload = Payload::udp(FROM_PORT, server::CLOSED, &data);
    sandbox.sender().datagram(ip(to), payload).identified(number)
}

/// Its fragments, framed.
fn three(sandbox: &Guest, to: &str, number: u32) -> Vec<Vec<u8>> {
    let whole = datagram(sandbox, to, number);
    let part = |i: usize| whole.clone().part(i * PART, (i + 1) * PART, i < 2);
    (0..3).map(|i| sandbox.sender().framed(&part(i))).collect()
}

/// The opening of a TCP connection, with the token as its data.
fn opening(sandbox: &Guest, to: &str, number: u32) -> Datagram {
    let payload = Payload::syn(FROM_PORT, server::ECHO).data(&sandbox.token());
    sandbox.sender().datagram(ip(to), payload).identified(number)
}

#[test]
fn an_allowed_datagram_of_eight_kilobytes_arrives_whole_and_comes_back() {
    for stage in [&STAGE, &XDP] {
        let sandbox = sandbox(stage);
        let bytes: Vec<u8> = (0..8192_u32).map(|i| (i % 251) as u8).collect();
        for to in ALLOWED {
            let socket = sandbox.datagrams(to);
            probe::echo_datagram(&socket, &bytes).or_fail(to);
        }
    }
}

#[test]
fn fragments_of_an_allowed_datagram_cross() {
    let sandbox = sandbox(&STAGE);
    for to in ALLOWED {
        assert_eq!(sandbox.crossing(&three(&sandbox, to, 1)).len(), 3, "{to}");
    }
}

#[test]
fn no_fragment_of_a_denied_datagram_crosses() {
    for stage in [&STAGE, &XDP] {
        let sandbox = sandbox(stage);
        for to in DENIED {
            assert!(sandbox.crossing(&three(&sandbox, to, 2)).is_empty(), "{to}");
            let mut backwards = three(&sandbox, to, 3);
            backwards.reverse();
            assert!(sandbox.crossing(&backwards).is_empty(), "{to}");
        }
        let counters = &sandbox.status()["counters"];
        assert_eq!(counters["deny_out"]["packets"], 4, "first fragments: {counters}");
        assert_eq!(counters["fragment"]["packets"], 8, "later ones: {counters}");
    }
}

#[test]
fn a_later_fragment_without_its_first_does_not_cross() {
    let sandbox = sandbox(&STAGE);
    for to in ALLOWED {
        let frames = three(&sandbox, to, 4);
        assert!(sandbox.crossing(&frames[1..]).is_empty(), "{to}");
        // Another datagram's first does not count: neither another number nor another address.
        let first = three(&sandbox, to, 5).remove(0);
        let frames = [vec![first], frames[1..].to_vec()].concat();
        assert_eq!(sandbox.crossing(&frames).len(), 1, "{to}");
    }
}

#[test]
fn a_first_fragment_that_hides_its_header_does_not_cross() {
    let sandbox = sandbox(&STAGE);
    for (number, to) in (10..).zip(ALLOWED) {
        let whole = opening(&sandbox, to, number);
        let frames =
            [whole.clone().first(16), whole.last(16)].map(|it| sandbox.sender().framed(&it));
        assert!(sandbox.crossing(&frames).is_empty(), "{to}");
    }
    assert_eq!(sandbox.status()["counters"]["fragment"]["packets"], 4);
}

#[test]
fn a_fragment_that_would_overwrite_the_header_does_not_cross() {
    let sandbox = sandbox(&STAGE);
    for (number, to) in (20..).zip(ALLOWED) {
        let whole = opening(&sandbox, to, number);
        let end = (TCP_HEADER + sandbox.token().len()) / 8 * 8;
        let overlapping = whole.clone().last(8);
        let frames = [whole.first(end), overlapping].map(|it| sandbox.sender().framed(&it));
        let seen = sandbox.crossing(&frames);
        assert!(!seen.contains(&frames[1]) && seen.len() <= 1, "{to}: {seen:?}");
        assert_eq!(sandbox.status()["counters"]["fragment"]["packets"], number - 19);
    }
}

#[test]
fn fragments_of_fragments_do_not_cross() {
    let sandbox = sandbox(&STAGE);
    let nested = datagram(&sandbox, ALLOWED[1], 30)
        .behind(Extension::fragment(0, true, 30))
        .behind(Extension::fragment(0, true, 31));
    assert!(sandbox.crossing(&[sandbox.sender().framed(&nested)]).is_empty());
}

#[test]
fn a_spoofed_fragment_does_not_cross() {
    let sandbox = sandbox(&STAGE);
    let stranger = Ipv4Addr::new(10, 11, 240, 2).into();
    let mut spoofed = datagram(&sandbox, ALLOWED[0], 40);
    spoofed.source = stranger;
    let frames = [spoofed.clone().first(PART), spoofed.last(PART)];
    let frames = frames.map(|it| sandbox.sender().framed(&it));
    assert!(sandbox.crossing(&frames).is_empty());
}

/// A first fragment that was let through does not keep a hole open for what follows it.
#[test]
fn a_tightening_bites_on_the_next_fragment() {
    let sandbox = sandbox(&STAGE);
    for (number, to) in (50..).zip(ALLOWED) {
        sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [to, MARKER_TO] }));
        let frames = three(&sandbox, to, number);
        assert_eq!(sandbox.crossing(&frames[..2]).len(), 2, "{to}: before");
        sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [MARKER_TO] }));
        assert!(sandbox.crossing(&frames[2..]).is_empty(), "{to}: after the tightening");
    }
}
