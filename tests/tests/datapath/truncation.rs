//! Every frame that may pass, cut at every length: none passes that is not whole.

use policy_common::reason::Reason;
use policy_tests::{
    kernel::{Action, Outcome, is_runnable},
    packet::{
        Datagram, ETHERNET, Extension, Frame, Payload,
        arp::Arp,
        cast::{GATEWAY, SANDBOX, SERVER},
        discovery::{self, Option::Source},
    },
};

use super::stage::{Stage, from_sandbox, syn_to, udp_to};

fn whole_frames() -> Vec<(&'static str, Frame)> {
    let with_options = Payload::syn(1, 22).data(&[1; 12]).with(12, &[0x80]);
    let chain = |datagram: Datagram| {
        let datagram = datagram.behind(Extension::hop_by_hop()).behind(Extension::authentication());
        datagram.behind(Extension::destination_options(2))
    };
    let solicitation = discovery::solicitation(SANDBOX.v6, GATEWAY.v6, &[Source(SANDBOX.mac)]);
    vec![
        ("TCP", syn_to(SERVER.v4, 22).frame()),
        ("TCP with options and data", from_sandbox(SERVER.v4, with_options.data(b"data")).frame()),
        ("TCP over IPv6", syn_to(SERVER.v6, 22).frame()),
        ("UDP", udp_to(SERVER.v4).frame()),
        ("UDP over IPv6", udp_to(SERVER.v6).frame()),
        ("ping", from_sandbox(SERVER.v4, Payload::echo(SERVER.v4.into(), false, 1, b"x")).frame()),
        (
            "ping over IPv6",
            from_sandbox(SERVER.v6, Payload::echo(SERVER.v6.into(), false, 1, b"x")).frame(),
        ),
        ("TCP behind a chain", chain(syn_to(SERVER.v6, 22)).frame()),
        ("a first fragment", udp_to(SERVER.v4).first(8).frame()),
        ("a first fragment over IPv6", udp_to(SERVER.v6).first(8).frame()),
        ("GRE", from_sandbox(SERVER.v4, Payload::raw(47, &[0; 9])).frame()),
        ("ARP", Arp::request((SANDBOX.mac, SANDBOX.v4), GATEWAY.v4).frame()),
        ("a neighbour solicitation", solicitation.frame()),
        ("a router solicitation", discovery::router_solicitation(SANDBOX.v6, &[]).frame()),
        (
            "a listener report",
            discovery::listener_report(SANDBOX.v6, discovery::solicited_node(SANDBOX.v6)).frame(),
        ),
    ]
}

#[test]
fn no_frame_passes_that_is_not_whole() {
    let mut stage = Stage::with("{}");
    for (what, frame) in whole_frames() {
        let whole = stage.kernel.from_sandbox(frame.bytes()).expect("the gate runs");
        assert!(whole.reason.is_some_and(Reason::passes), "{what}: {whole:?}");
        // Shorter ones leave no device: the kernel refuses them where they are made.
        for length in ETHERNET..frame.bytes().len() {
            let cut = frame.clone().cut(length);
            let early = stage.kernel.early_drop(cut.bytes()).expect("the gate runs");
            assert!(is_dropped(&early), "{what}, cut at {length}, in XDP: {early:?}");
            if is_runnable(cut.bytes()) {
                let outcome = stage.kernel.from_sandbox(cut.bytes()).expect("the gate runs");
                assert!(is_dropped(&outcome), "{what}, cut at {length}: {outcome:?} [{cut:?}]");
            }
        }
    }
}

fn is_dropped(outcome: &Outcome) -> bool {
    outcome.action == Action::Drop && outcome.reason.is_some_and(|reason| reason.line() <= 2)
}

#[test]
fn the_lengths_inside_are_what_counts() {
    // The same cuts, with the lengths in the IP header made to fit.
    let mut stage = Stage::with("{}");
    for length in 0..20_u8 {
        let tcp = Payload::raw(6, &Payload::syn(1, 22).bytes[..length.into()]);
        for frame in
            [from_sandbox(SERVER.v4, tcp.clone()).frame(), from_sandbox(SERVER.v6, tcp).frame()]
        {
            let padded = frame.clone().padded(&[0x50; 20]);
            for frame in [frame, padded] {
                let outcome = stage.kernel.from_sandbox(frame.bytes()).expect("the gate runs");
                assert_eq!(outcome.reason, Some(Reason::Malformed), "{length}: {frame:?}");
            }
        }
    }
}
