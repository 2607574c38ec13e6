//! Checksums that a sandbox leaves to the device: the host writes them after the frame was judged,
//! wherever the sandbox said. Nowhere but where the protocol has them.

use policy_tests::{
    packet::{Payload, TcpFlags},
    server,
    stage::{Guest, MARKER_TO, Shared, ip},
    wire::{FROM_PORT, unfinished},
};

static STAGE: Shared = Shared::with("");

const ALLOWED: &str = "2001:db8:1::1";
/// Where headers begin in an IPv6 frame.
const IP: u16 = 14;
const TRANSPORT: u16 = IP + 40;
const DESTINATION: u16 = IP + 24;

fn sandbox() -> Guest {
    let sandbox = STAGE.sandbox();
    sandbox.may_only_reach(&[ALLOWED, MARKER_TO]);
    sandbox
}

fn udp(sandbox: &Guest) -> Vec<u8> {
    let payload = Payload::udp(FROM_PORT, server::CLOSED, &sandbox.token());
    sandbox.sender().send(ip(ALLOWED), payload)
}

fn tcp(sandbox: &Guest) -> Vec<u8> {
    let payload = Payload::tcp(FROM_PORT, server::CLOSED, TcpFlags::SYN).data(&sandbox.token());
    sandbox.sender().send(ip(ALLOWED), payload)
}

/// How many of the frames cross when the device is to write their checksum there.
fn crossing(sandbox: &Guest, frame: &[u8], start: u16, place: u16) -> usize {
    let frame = unfinished(frame, start, place - start);
    sandbox.crossing_through(&sandbox.offloading_wire(), &[frame]).len()
}

#[test]
fn a_checksum_at_its_place_may_be_left_to_the_device() {
    let sandbox = sandbox();
    assert_eq!(crossing(&sandbox, &udp(&sandbox), TRANSPORT, TRANSPORT + 6), 1);
    assert_eq!(crossing(&sandbox, &tcp(&sandbox), TRANSPORT, TRANSPORT + 16), 1);
}

#[test]
fn a_checksum_over_what_was_judged_stops_the_frame() {
    let sandbox = sandbox();
    let (udp, tcp) = (udp(&sandbox), tcp(&sandbox));
    let bent = [
        (&udp, IP + 6, DESTINATION + 2, "a group of the destination"),
        (&udp, IP + 6, DESTINATION - 2, "a group of the source"),
        (&udp, TRANSPORT, TRANSPORT + 2, "UDP's destination port"),
        (&tcp, TRANSPORT, TRANSPORT + 2, "TCP's destination port"),
        (&tcp, TRANSPORT, TRANSPORT + 12, "TCP's flags"),
    ];
    for (frame, start, place, what) in bent {
        assert_eq!(crossing(&sandbox, frame, start, place), 0, "over {what}");
    }
    // It is the policy that stops them: without one they cross.
    sandbox.delete();
    for (frame, start, place, what) in bent {
        assert_eq!(crossing(&sandbox, frame, start, place), 1, "over {what}, without a policy");
    }
}
