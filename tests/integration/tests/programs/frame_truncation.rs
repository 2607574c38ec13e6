//! All truncations of every allowed frame: no truncated frame passes.

use policy_common::reason::Reason;
use policy_integration::program_runner::{FrameAction, RunOutcome, is_runnable};
use policy_testbed::packets::{
    ETHERNET_HEADER_LEN, EthernetFrame, ExtensionHeader, IpDatagram, IpPayload,
    arp_packet::ArpPacket,
    neighbor_messages::{self, NdOption::SourceLinkAddress},
    test_hosts::{GATEWAY, SANDBOX, SERVER},
};

use super::datapath_case::{
    DatapathCase, datagram_from_sandbox, syn_from_sandbox, udp_from_sandbox,
};

fn whole_frames() -> Vec<(&'static str, EthernetFrame)> {
    let with_options = IpPayload::syn(1, 22).with_data(&[1; 12]).with_bytes_at(12, &[0x80]);
    let chain = |datagram: IpDatagram| {
        let datagram = datagram
            .with_extension(ExtensionHeader::hop_by_hop())
            .with_extension(ExtensionHeader::authentication());
        datagram.with_extension(ExtensionHeader::destination_options(2))
    };
    let solicitation = neighbor_messages::neighbor_solicitation(
        SANDBOX.v6,
        GATEWAY.v6,
        &[SourceLinkAddress(SANDBOX.mac)],
    );
    vec![
        ("TCP", syn_from_sandbox(SERVER.v4, 22).to_frame()),
        (
            "TCP with options and data",
            datagram_from_sandbox(SERVER.v4, with_options.with_data(b"data")).to_frame(),
        ),
        ("TCP over IPv6", syn_from_sandbox(SERVER.v6, 22).to_frame()),
        ("UDP", udp_from_sandbox(SERVER.v4).to_frame()),
        ("UDP over IPv6", udp_from_sandbox(SERVER.v6).to_frame()),
        (
            "ping",
            datagram_from_sandbox(
                SERVER.v4,
                IpPayload::icmp_echo(SERVER.v4.into(), false, 1, b"x"),
            )
            .to_frame(),
        ),
        (
            "ping over IPv6",
            datagram_from_sandbox(
                SERVER.v6,
                IpPayload::icmp_echo(SERVER.v6.into(), false, 1, b"x"),
            )
            .to_frame(),
        ),
        ("TCP behind a chain", chain(syn_from_sandbox(SERVER.v6, 22)).to_frame()),
        ("a first fragment", udp_from_sandbox(SERVER.v4).first_fragment(8).to_frame()),
        ("a first fragment over IPv6", udp_from_sandbox(SERVER.v6).first_fragment(8).to_frame()),
        ("GRE", datagram_from_sandbox(SERVER.v4, IpPayload::raw(47, &[0; 9])).to_frame()),
        ("ARP", ArpPacket::request((SANDBOX.mac, SANDBOX.v4), GATEWAY.v4).to_frame()),
        ("a neighbour solicitation", solicitation.to_frame()),
        (
            "a router solicitation",
            neighbor_messages::router_solicitation(SANDBOX.v6, &[]).to_frame(),
        ),
        (
            "a listener report",
            neighbor_messages::listener_report(
                SANDBOX.v6,
                neighbor_messages::solicited_node_group(SANDBOX.v6),
            )
            .to_frame(),
        ),
    ]
}

#[test]
fn no_frame_passes_that_is_not_whole() {
    let mut stage = DatapathCase::with_network("{}");
    for (what, frame) in whole_frames() {
        let whole = stage.programs.from_sandbox(frame.bytes()).expect("the gate runs");
        assert!(whole.reason.is_some_and(Reason::passes), "{what}: {whole:?}");
        // The kernel rejects shorter frames when they are created.
        for length in ETHERNET_HEADER_LEN..frame.bytes().len() {
            let cut = frame.clone().truncated(length);
            let early = stage.programs.early_drop_in_xdp(cut.bytes()).expect("the gate runs");
            assert!(assert_dropped(&early), "{what}, cut at {length}, in XDP: {early:?}");
            if is_runnable(cut.bytes()) {
                let outcome = stage.programs.from_sandbox(cut.bytes()).expect("the gate runs");
                assert!(assert_dropped(&outcome), "{what}, cut at {length}: {outcome:?} [{cut:?}]");
            }
        }
    }
}

fn assert_dropped(outcome: &RunOutcome) -> bool {
    outcome.action == FrameAction::Drop && outcome.reason.is_some_and(|reason| reason.line() <= 2)
}

#[test]
fn the_lengths_inside_are_what_counts() {
    // The same truncations, with adjusted lengths in the IP header.
    let mut stage = DatapathCase::with_network("{}");
    for length in 0..20_u8 {
        let tcp = IpPayload::raw(6, &IpPayload::syn(1, 22).bytes[..length.into()]);
        for frame in [
            datagram_from_sandbox(SERVER.v4, tcp.clone()).to_frame(),
            datagram_from_sandbox(SERVER.v6, tcp).to_frame(),
        ] {
            let padded = frame.clone().padded(&[0x50; 20]);
            for frame in [frame, padded] {
                let outcome = stage.programs.from_sandbox(frame.bytes()).expect("the gate runs");
                assert_eq!(outcome.reason, Some(Reason::Malformed), "{length}: {frame:?}");
            }
        }
    }
}
