//! Line 3: connections that others start to the sandbox.

use std::net::IpAddr;

use policy_agent::dataplane::InboundSource;
use policy_common::reason::Reason::{
    AllowOut, Delivered, DenyOut, ForeignError, InboundRefused, NoPolicy, PlatformDeny, Reply,
    SpoofedIp,
};
use policy_oracle::InboundOrigin::{Forwarded, Host};
use policy_testbed::packets::{
    IpDatagram, IpPayload, TcpFlags,
    test_hosts::{CLIENT, GATEWAY, OTHER_SERVER, SANDBOX, SERVER},
};

use super::{
    datapath_case::{
        DENY_ALL, DatapathCase, DatapathSettings, DatapathStep, datagram_from_sandbox,
        datagram_to_sandbox, receives, sends, syn_from_sandbox,
    },
    denied_floods::flood,
};

const CLIENT_PORT: u16 = 51_000;

fn client_syn() -> IpPayload {
    IpPayload::syn(CLIENT_PORT, 80)
}

fn service_segment(flags: TcpFlags) -> IpPayload {
    IpPayload::tcp(80, CLIENT_PORT, flags)
}

#[test]
fn a_service_answers_under_deny_all() {
    for (client, other) in [
        (IpAddr::from(CLIENT.v4), IpAddr::from(OTHER_SERVER.v4)),
        (CLIENT.v6.into(), OTHER_SERVER.v6.into()),
    ] {
        DatapathCase::with_network(DENY_ALL).assert_steps(&[
            sends(
                "an answer to nobody",
                datagram_from_sandbox(client, service_segment(TcpFlags::SYN_ACK)),
                DenyOut,
            ),
            receives(
                "a client connects",
                Forwarded,
                datagram_to_sandbox(client, client_syn()),
                Delivered,
            ),
            sends(
                "the handshake",
                datagram_from_sandbox(client, service_segment(TcpFlags::SYN_ACK)),
                Reply,
            ),
            receives(
                "its end",
                Forwarded,
                datagram_to_sandbox(client, IpPayload::tcp(CLIENT_PORT, 80, TcpFlags::ACK)),
                Delivered,
            ),
            sends(
                "data",
                datagram_from_sandbox(client, service_segment(TcpFlags::ACK).with_data(b"hello")),
                Reply,
            ),
            sends("the end", datagram_from_sandbox(client, service_segment(TcpFlags::FIN)), Reply),
            sends("a reset", datagram_from_sandbox(client, service_segment(TcpFlags::RST)), Reply),
            sends(
                "to another port",
                datagram_from_sandbox(client, IpPayload::tcp(80, CLIENT_PORT + 1, TcpFlags::ACK)),
                DenyOut,
            ),
            sends(
                "from another port",
                datagram_from_sandbox(client, IpPayload::tcp(81, CLIENT_PORT, TcpFlags::ACK)),
                DenyOut,
            ),
            sends(
                "to another client",
                datagram_from_sandbox(other, service_segment(TcpFlags::ACK)),
                DenyOut,
            ),
            sends(
                "over another protocol",
                datagram_from_sandbox(client, IpPayload::udp(80, CLIENT_PORT, b"")),
                DenyOut,
            ),
        ]);
    }
}

#[test]
fn an_exposed_port_does_not_allow_outbound_connections() {
    let mut steps = vec![receives(
        "a client connects",
        Forwarded,
        datagram_to_sandbox(CLIENT.v4, client_syn()),
        Delivered,
    )];
    // ECN bits, urgent data and FIN do not turn a SYN into a reply; only ACK does.
    for flags in [0x02, 0xc2, 0x03, 0x22, 0x0a, 0x06] {
        let what = format!("a SYN from the exposed port, flags {flags:02x}");
        steps.push(sends(
            &what,
            datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags(flags))),
            DenyOut,
        ));
    }
    steps.push(sends(
        "to another server",
        datagram_from_sandbox(SERVER.v4, IpPayload::syn(80, CLIENT_PORT)),
        DenyOut,
    ));
    DatapathCase::with_network(DENY_ALL).assert_steps(&steps);
}

#[test]
fn only_a_syn_starts_a_connection() {
    let mut steps = Vec::new();
    for flags in [0x10, 0x12, 0x11, 0x01, 0x04, 0x00] {
        let sent = IpPayload::tcp(CLIENT_PORT, 80, TcpFlags(flags));
        steps.push(receives(
            "no opening",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, sent),
            Delivered,
        ));
        steps.push(sends(
            "its answer",
            datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::ACK)),
            DenyOut,
        ));
    }
    DatapathCase::with_network(DENY_ALL).assert_steps(&steps);
}

#[test]
fn a_late_answer_opens_nothing_after_a_tightening() {
    let mut stage =
        DatapathCase::with_network(r#"{"allowOut": ["203.0.113.10"], "denyOut": ["0.0.0.0/0"]}"#);
    let ask = || datagram_from_sandbox(SERVER.v4, IpPayload::udp(4000, 53, b"?"));
    let tcp = |flags| datagram_from_sandbox(SERVER.v4, IpPayload::tcp(4000, 80, flags));
    stage.assert_steps(&[
        sends("a question", ask(), AllowOut),
        receives(
            "its answer",
            Forwarded,
            datagram_to_sandbox(SERVER.v4, IpPayload::udp(53, 4000, b"!")),
            Delivered,
        ),
        sends("a connection", tcp(TcpFlags::SYN), AllowOut),
        receives(
            "its handshake",
            Forwarded,
            datagram_to_sandbox(SERVER.v4, IpPayload::tcp(80, 4000, TcpFlags::SYN_ACK)),
            Delivered,
        ),
    ]);
    stage.publish(DENY_ALL);
    stage.assert_steps(&[
        sends("another question", ask(), DenyOut),
        sends("data", tcp(TcpFlags::ACK), DenyOut),
        receives(
            "a late answer",
            Forwarded,
            datagram_to_sandbox(SERVER.v4, IpPayload::udp(53, 4000, b"!")),
            Delivered,
        ),
        receives(
            "late data",
            Forwarded,
            datagram_to_sandbox(SERVER.v4, IpPayload::tcp(80, 4000, TcpFlags::ACK)),
            Delivered,
        ),
        sends("still another question", ask(), DenyOut),
        sends("more data", tcp(TcpFlags::ACK), DenyOut),
    ]);
}

#[test]
fn udp_and_ping_count_from_the_host_only() {
    for (host, sandbox_pings) in [(IpAddr::from(GATEWAY.v4), 7_u16), (GATEWAY.v6.into(), 8)] {
        let ping = |identifier| {
            datagram_to_sandbox(host, IpPayload::icmp_echo(host, false, identifier, b"ping"))
        };
        let pong = |identifier| {
            datagram_from_sandbox(host, IpPayload::icmp_echo(host, true, identifier, b"ping"))
        };
        DatapathCase::with_network(DENY_ALL).assert_steps(&[
            receives(
                "UDP from elsewhere",
                Forwarded,
                datagram_to_sandbox(host, IpPayload::udp(53, 4000, b"")),
                Delivered,
            ),
            sends(
                "its answer",
                datagram_from_sandbox(host, IpPayload::udp(4000, 53, b"")),
                PlatformDeny,
            ),
            receives(
                "UDP from the host",
                Host,
                datagram_to_sandbox(host, IpPayload::udp(53, 4000, b"")),
                Delivered,
            ),
            sends("its answer", datagram_from_sandbox(host, IpPayload::udp(4000, 53, b"")), Reply),
            receives("ping from elsewhere", Forwarded, ping(1), Delivered),
            sends("its answer", pong(1), PlatformDeny),
            receives("ping from the host", Host, ping(2), Delivered),
            sends("its answer", pong(2), Reply),
            sends("another's answer", pong(3), PlatformDeny),
            sends(
                "a ping of its own",
                datagram_from_sandbox(host, IpPayload::icmp_echo(host, false, sandbox_pings, b"")),
                PlatformDeny,
            ),
        ]);
    }
}

#[test]
fn an_icmp_error_passes_if_it_is_about_an_inbound_connection() {
    for (client, other) in [
        (IpAddr::from(CLIENT.v4), IpAddr::from(OTHER_SERVER.v4)),
        (CLIENT.v6.into(), OTHER_SERVER.v6.into()),
    ] {
        let about = |from, payload| datagram_to_sandbox(from, payload).to_packet();
        let error =
            |to, about: &[u8]| datagram_from_sandbox(to, IpPayload::icmp_unreachable(to, about));
        let segment = about(client, IpPayload::tcp(CLIENT_PORT, 80, TcpFlags::ACK));
        let foreign = about(client, IpPayload::tcp(CLIENT_PORT, 81, TcpFlags::ACK));
        let udp = about(client, IpPayload::udp(CLIENT_PORT, 80, b""));
        let others = about(other, IpPayload::tcp(CLIENT_PORT, 80, TcpFlags::ACK));
        let outbound = datagram_from_sandbox(client, IpPayload::syn(80, CLIENT_PORT)).to_packet();
        DatapathCase::with_network(DENY_ALL).assert_steps(&[
            sends("before there is one", error(client, &segment), DenyOut),
            receives(
                "a client connects",
                Forwarded,
                datagram_to_sandbox(client, client_syn()),
                Delivered,
            ),
            sends("about it", error(client, &segment), Reply),
            sends(
                "about it, cut behind the ports",
                error(client, &segment[..segment.len() - 16]),
                Reply,
            ),
            sends(
                "about it, cut in the ports",
                error(client, &segment[..segment.len() - 17]),
                DenyOut,
            ),
            sends("about another port", error(client, &foreign), DenyOut),
            sends("about another protocol", error(client, &udp), DenyOut),
            sends("about it, to another", error(other, &segment), ForeignError),
            sends("about another's, to the client", error(client, &others), ForeignError),
            sends("about an own packet", error(client, &outbound), ForeignError),
            sends("about nothing", error(client, b""), ForeignError),
            sends(
                "a redirect, or of a kind that is not known",
                datagram_from_sandbox(
                    client,
                    IpPayload::icmp_unreachable(client, &segment).with_bytes_at(0, &[5]),
                ),
                if client.is_ipv4() { ForeignError } else { DenyOut },
            ),
        ]);
    }
}

#[test]
fn with_inbound_from_the_host_only_others_are_refused() {
    let setting =
        || DatapathSettings { inbound: InboundSource::Host, ..DatapathSettings::default() };
    let ping = IpPayload::icmp_echo(CLIENT.v4.into(), false, 1, b"");
    let tagged = datagram_to_sandbox(CLIENT.v4, client_syn()).to_frame().with_vlan_tag(0x8100, 5);
    let broken = datagram_to_sandbox(CLIENT.v4, client_syn()).with_options(&[1; 4]);
    DatapathCase::with_settings(DENY_ALL, setting()).assert_steps(&[
        receives(
            "a client connects",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, client_syn()),
            InboundRefused,
        ),
        sends(
            "a handshake",
            datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::SYN_ACK)),
            DenyOut,
        ),
        sends("data", datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::ACK)), DenyOut),
        receives(
            "over IPv6",
            Forwarded,
            datagram_to_sandbox(CLIENT.v6, client_syn()),
            InboundRefused,
        ),
        receives(
            "in a first fragment",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, client_syn().with_data(&[0; 8])).first_fragment(24),
            InboundRefused,
        ),
        receives("behind options", Forwarded, broken, InboundRefused),
        receives("behind a tag", Forwarded, tagged, InboundRefused),
        receives("a ping", Forwarded, datagram_to_sandbox(CLIENT.v4, ping), InboundRefused),
        receives(
            "UDP, which may be an answer",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, IpPayload::udp(53, 4000, b"")),
            Delivered,
        ),
        receives(
            "TCP that may be an answer",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, IpPayload::tcp(80, 4000, TcpFlags::SYN_ACK)),
            Delivered,
        ),
        receives(
            "the host connects",
            Host,
            datagram_to_sandbox(GATEWAY.v4, client_syn()),
            Delivered,
        ),
        sends(
            "its answer",
            datagram_from_sandbox(GATEWAY.v4, service_segment(TcpFlags::SYN_ACK)),
            Reply,
        ),
    ]);
}

#[test]
fn with_inbound_from_the_host_only_answers_of_other_protocols_pass() {
    let setting =
        || DatapathSettings { inbound: InboundSource::Host, ..DatapathSettings::default() };
    let allowed = r#"{"allowOut": ["203.0.113.10", "2001:db8:1::1"], "denyOut": ["0.0.0.0/0"]}"#;
    // SCTP (a DATA chunk), GRE, ESP, UDP-Lite, IP in IP.
    let answer = |protocol| IpPayload::raw(protocol, &[0; 24]);
    let opening = || IpPayload::raw(132, &[&[0; 12][..], &[1; 12]].concat());
    let truncated = || IpPayload::raw(132, &[0; 12]);
    for (server, stranger) in
        [(IpAddr::from(SERVER.v4), IpAddr::from(CLIENT.v4)), (SERVER.v6.into(), CLIENT.v6.into())]
    {
        let forwarded = |what: &str, from, payload, expected| {
            receives(what, Forwarded, datagram_to_sandbox(from, payload), expected)
        };
        let mut steps: Vec<DatapathStep> = Vec::new();
        for protocol in [132, 47, 50, 136, 4] {
            let what = format!("protocol {protocol} of an allowed server");
            steps.push(forwarded(&what, server, answer(protocol), Delivered));
            let what = format!("protocol {protocol} of a stranger");
            steps.push(forwarded(&what, stranger, answer(protocol), InboundRefused));
        }
        steps.push(forwarded("a server opens an association", server, opening(), InboundRefused));
        steps.push(forwarded("SCTP without a chunk", server, truncated(), InboundRefused));
        DatapathCase::with_settings(allowed, setting()).assert_steps(&steps);
    }
}

#[test]
fn without_a_policy_nothing_is_answered() {
    DatapathCase::without_policy(DatapathSettings::default()).assert_steps(&[
        receives(
            "a client connects",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, client_syn()),
            Delivered,
        ),
        sends(
            "the handshake",
            datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::SYN_ACK)),
            NoPolicy,
        ),
        sends(
            "an own connection",
            datagram_from_sandbox(SERVER.v4, IpPayload::syn(1, 22)),
            NoPolicy,
        ),
        sends(
            "a spoofed one",
            IpDatagram::new(CLIENT.v4, SANDBOX.v4, IpPayload::syn(1, 22)),
            SpoofedIp,
        ),
    ]);
}

#[test]
fn a_fresh_sandbox_in_the_slot_inherits_nothing() {
    let mut stage = DatapathCase::with_network(DENY_ALL);
    let answer = datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::SYN_ACK)).to_frame();
    stage.assert_steps(&[
        receives(
            "a client connects",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, client_syn()),
            Delivered,
        ),
        sends("the handshake", answer.clone(), Reply),
    ]);
    stage
        .programs
        .reset_sandbox(Some(SANDBOX.mac), &[SANDBOX.v4.into()])
        .expect("the slot is prepared");
    let outcome = stage.programs.from_sandbox(answer.bytes()).expect("the gate runs");
    assert_eq!(outcome.reason, Some(NoPolicy));
    stage.publish(DENY_ALL);
    let outcome = stage.programs.from_sandbox(answer.bytes()).expect("the gate runs");
    assert_eq!(outcome.reason, Some(DenyOut));
}

#[test]
fn replies_pass_in_the_middle_of_a_flood() {
    let flooding = syn_from_sandbox(SERVER.v4, 443).to_frame();
    let answer = |flags| datagram_from_sandbox(CLIENT.v4, IpPayload::tcp(80, 51_000, flags));
    let response = || datagram_from_sandbox(GATEWAY.v4, IpPayload::udp(53, 41_000, b"answer"));
    let mut case = DatapathCase::with_network(DENY_ALL);
    flood(&case, &flooding);
    case.assert_steps(&[
        sends("a segment of no connection", answer(TcpFlags::ACK), DenyOut),
        sends("a response to nobody", response(), PlatformDeny),
        receives(
            "a client connects",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, IpPayload::syn(51_000, 80)),
            Delivered,
        ),
        receives(
            "the host asks",
            Host,
            datagram_to_sandbox(GATEWAY.v4, IpPayload::udp(41_000, 53, b"question")),
            Delivered,
        ),
    ]);
    flood(&case, &flooding);
    case.assert_steps(&[
        sends("the handshake", answer(TcpFlags::SYN_ACK), Reply),
        sends("data", answer(TcpFlags::ACK), Reply),
        sends("the response", response(), Reply),
        sends("a SYN", datagram_from_sandbox(CLIENT.v4, IpPayload::syn(80, 51_000)), DenyOut),
        sends("the end", answer(TcpFlags::FIN), Reply),
    ]);
}
