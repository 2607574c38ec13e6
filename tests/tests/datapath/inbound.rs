//! Line 3: connections that others start towards the sandbox.

use std::net::IpAddr;

use policy_agent::dataplane::Inbound;
use policy_common::reason::Reason::{
    AllowOut, Delivered, DenyOut, ForeignError, InboundRefused, NoPolicy, PlatformDeny, Reply,
    SpoofedIp,
};
use policy_tests::{
    kernel::Origin::{Elsewhere, Host},
    packet::{
        Datagram, Payload, TcpFlags,
        cast::{CLIENT, GATEWAY, OTHER, SANDBOX, SERVER},
    },
};

use super::stage::{Setting, Stage, from_sandbox, into, out, sandbox_like};

const SHUT: &str = r#"{"denyOut": ["0.0.0.0/0"]}"#;
const PORT: u16 = 51_000;

fn to_sandbox(from: impl Into<IpAddr>, payload: Payload) -> Datagram {
    let from = from.into();
    Datagram::new(from, sandbox_like(from), payload)
}

fn syn() -> Payload {
    Payload::syn(PORT, 80)
}

fn answer(flags: TcpFlags) -> Payload {
    Payload::tcp(80, PORT, flags)
}

#[test]
fn a_service_answers_under_deny_all() {
    for (client, other) in
        [(IpAddr::from(CLIENT.v4), IpAddr::from(OTHER.v4)), (CLIENT.v6.into(), OTHER.v6.into())]
    {
        Stage::with(SHUT).judge(&[
            out("an answer to nobody", from_sandbox(client, answer(TcpFlags::SYN_ACK)), DenyOut),
            into("a client connects", Elsewhere, to_sandbox(client, syn()), Delivered),
            out("the handshake", from_sandbox(client, answer(TcpFlags::SYN_ACK)), Reply),
            into(
                "its end",
                Elsewhere,
                to_sandbox(client, Payload::tcp(PORT, 80, TcpFlags::ACK)),
                Delivered,
            ),
            out("data", from_sandbox(client, answer(TcpFlags::ACK).data(b"hello")), Reply),
            out("the end", from_sandbox(client, answer(TcpFlags::FIN)), Reply),
            out("a reset", from_sandbox(client, answer(TcpFlags::RST)), Reply),
            out(
                "to another port",
                from_sandbox(client, Payload::tcp(80, PORT + 1, TcpFlags::ACK)),
                DenyOut,
            ),
            out(
                "from another port",
                from_sandbox(client, Payload::tcp(81, PORT, TcpFlags::ACK)),
                DenyOut,
            ),
            out("to another client", from_sandbox(other, answer(TcpFlags::ACK)), DenyOut),
            out(
                "over another protocol",
                from_sandbox(client, Payload::udp(80, PORT, b"")),
                DenyOut,
            ),
        ]);
    }
}

#[test]
fn an_exposed_port_is_no_way_out() {
    let mut steps =
        vec![into("a client connects", Elsewhere, to_sandbox(CLIENT.v4, syn()), Delivered)];
    // ECN bits, urgent data and FIN make no answer of a SYN; only ACK does.
    for flags in [0x02, 0xc2, 0x03, 0x22, 0x0a, 0x06] {
        let what = format!("a SYN from the exposed port, flags {flags:02x}");
        steps.push(out(&what, from_sandbox(CLIENT.v4, answer(TcpFlags(flags))), DenyOut));
    }
    steps.push(out("to another server", from_sandbox(SERVER.v4, Payload::syn(80, PORT)), DenyOut));
    Stage::with(SHUT).judge(&steps);
}

#[test]
fn only_a_syn_starts_a_connection() {
    let mut steps = Vec::new();
    for flags in [0x10, 0x12, 0x11, 0x01, 0x04, 0x00] {
        let sent = Payload::tcp(PORT, 80, TcpFlags(flags));
        steps.push(into("no opening", Elsewhere, to_sandbox(CLIENT.v4, sent), Delivered));
        steps.push(out("its answer", from_sandbox(CLIENT.v4, answer(TcpFlags::ACK)), DenyOut));
    }
    Stage::with(SHUT).judge(&steps);
}

#[test]
fn a_late_answer_opens_nothing_after_a_tightening() {
    let mut stage = Stage::with(r#"{"allowOut": ["203.0.113.10"], "denyOut": ["0.0.0.0/0"]}"#);
    let ask = || from_sandbox(SERVER.v4, Payload::udp(4000, 53, b"?"));
    let tcp = |flags| from_sandbox(SERVER.v4, Payload::tcp(4000, 80, flags));
    stage.judge(&[
        out("a question", ask(), AllowOut),
        into(
            "its answer",
            Elsewhere,
            to_sandbox(SERVER.v4, Payload::udp(53, 4000, b"!")),
            Delivered,
        ),
        out("a connection", tcp(TcpFlags::SYN), AllowOut),
        into(
            "its handshake",
            Elsewhere,
            to_sandbox(SERVER.v4, Payload::tcp(80, 4000, TcpFlags::SYN_ACK)),
            Delivered,
        ),
    ]);
    stage.publish(SHUT);
    stage.judge(&[
        out("another question", ask(), DenyOut),
        out("data", tcp(TcpFlags::ACK), DenyOut),
        into(
            "a late answer",
            Elsewhere,
            to_sandbox(SERVER.v4, Payload::udp(53, 4000, b"!")),
            Delivered,
        ),
        into(
            "late data",
            Elsewhere,
            to_sandbox(SERVER.v4, Payload::tcp(80, 4000, TcpFlags::ACK)),
            Delivered,
        ),
        out("still another question", ask(), DenyOut),
        out("more data", tcp(TcpFlags::ACK), DenyOut),
    ]);
}

#[test]
fn udp_and_ping_count_from_the_host_only() {
    for (host, sandbox_pings) in [(IpAddr::from(GATEWAY.v4), 7_u16), (GATEWAY.v6.into(), 8)] {
        let ping = |identifier| to_sandbox(host, Payload::echo(host, false, identifier, b"ping"));
        let pong = |identifier| from_sandbox(host, Payload::echo(host, true, identifier, b"ping"));
        Stage::with(SHUT).judge(&[
            into(
                "UDP from elsewhere",
                Elsewhere,
                to_sandbox(host, Payload::udp(53, 4000, b"")),
                Delivered,
            ),
            out("its answer", from_sandbox(host, Payload::udp(4000, 53, b"")), PlatformDeny),
            into(
                "UDP from the host",
                Host,
                to_sandbox(host, Payload::udp(53, 4000, b"")),
                Delivered,
            ),
            out("its answer", from_sandbox(host, Payload::udp(4000, 53, b"")), Reply),
            into("ping from elsewhere", Elsewhere, ping(1), Delivered),
            out("its answer", pong(1), PlatformDeny),
            into("ping from the host", Host, ping(2), Delivered),
            out("its answer", pong(2), Reply),
            out("another's answer", pong(3), PlatformDeny),
            out(
                "a ping of its own",
                from_sandbox(host, Payload::echo(host, false, sandbox_pings, b"")),
                PlatformDeny,
            ),
        ]);
    }
}

#[test]
fn an_icmp_error_passes_if_it_is_about_an_inbound_connection() {
    for (client, other) in
        [(IpAddr::from(CLIENT.v4), IpAddr::from(OTHER.v4)), (CLIENT.v6.into(), OTHER.v6.into())]
    {
        let about = |from, payload| to_sandbox(from, payload).packet();
        let error = |to, about: &[u8]| from_sandbox(to, Payload::unreachable(to, about));
        let segment = about(client, Payload::tcp(PORT, 80, TcpFlags::ACK));
        let foreign = about(client, Payload::tcp(PORT, 81, TcpFlags::ACK));
        let udp = about(client, Payload::udp(PORT, 80, b""));
        let others = about(other, Payload::tcp(PORT, 80, TcpFlags::ACK));
        let outbound = from_sandbox(client, Payload::syn(80, PORT)).packet();
        Stage::with(SHUT).judge(&[
            out("before there is one", error(client, &segment), DenyOut),
            into("a client connects", Elsewhere, to_sandbox(client, syn()), Delivered),
            out("about it", error(client, &segment), Reply),
            out(
                "about it, cut behind the ports",
                error(client, &segment[..segment.len() - 16]),
                Reply,
            ),
            out(
                "about it, cut in the ports",
                error(client, &segment[..segment.len() - 17]),
                DenyOut,
            ),
            out("about another port", error(client, &foreign), DenyOut),
            out("about another protocol", error(client, &udp), DenyOut),
            out("about it, to another", error(other, &segment), ForeignError),
            out("about another's, to the client", error(client, &others), ForeignError),
            out("about an own packet", error(client, &outbound), ForeignError),
            out("about nothing", error(client, b""), ForeignError),
            out(
                "a redirect, or of a kind that is not known",
                from_sandbox(client, Payload::unreachable(client, &segment).with(0, &[5])),
                if client.is_ipv4() { ForeignError } else { DenyOut },
            ),
        ]);
    }
}

#[test]
fn with_inbound_from_the_host_only_others_are_refused() {
    let setting = || Setting { inbound: Inbound::Host, ..Setting::default() };
    let ping = Payload::echo(CLIENT.v4.into(), false, 1, b"");
    let tagged = to_sandbox(CLIENT.v4, syn()).frame().tagged(0x8100, 5);
    let broken = to_sandbox(CLIENT.v4, syn()).options(&[1; 4]);
    Stage::set(SHUT, setting()).judge(&[
        into("a client connects", Elsewhere, to_sandbox(CLIENT.v4, syn()), InboundRefused),
        out("a handshake", from_sandbox(CLIENT.v4, answer(TcpFlags::SYN_ACK)), DenyOut),
        out("data", from_sandbox(CLIENT.v4, answer(TcpFlags::ACK)), DenyOut),
        into("over IPv6", Elsewhere, to_sandbox(CLIENT.v6, syn()), InboundRefused),
        into(
            "in a first fragment",
            Elsewhere,
            to_sandbox(CLIENT.v4, syn().data(&[0; 8])).first(24),
            InboundRefused,
        ),
        into("behind options", Elsewhere, broken, InboundRefused),
        into("behind a tag", Elsewhere, tagged, InboundRefused),
        into("a ping", Elsewhere, to_sandbox(CLIENT.v4, ping), InboundRefused),
        into(
            "UDP, which may be an answer",
            Elsewhere,
            to_sandbox(CLIENT.v4, Payload::udp(53, 4000, b"")),
            Delivered,
        ),
        into(
            "TCP that may be an answer",
            Elsewhere,
            to_sandbox(CLIENT.v4, Payload::tcp(80, 4000, TcpFlags::SYN_ACK)),
            Delivered,
        ),
        into("the host connects", Host, to_sandbox(GATEWAY.v4, syn()), Delivered),
        out("its answer", from_sandbox(GATEWAY.v4, answer(TcpFlags::SYN_ACK)), Reply),
    ]);
}

#[test]
fn without_a_policy_nothing_is_answered() {
    Stage::without_policy(Setting::default()).judge(&[
        into("a client connects", Elsewhere, to_sandbox(CLIENT.v4, syn()), Delivered),
        out("the handshake", from_sandbox(CLIENT.v4, answer(TcpFlags::SYN_ACK)), NoPolicy),
        out("an own connection", from_sandbox(SERVER.v4, Payload::syn(1, 22)), NoPolicy),
        out("a spoofed one", Datagram::new(CLIENT.v4, SANDBOX.v4, Payload::syn(1, 22)), SpoofedIp),
    ]);
}

#[test]
fn a_fresh_sandbox_in_the_slot_inherits_nothing() {
    let mut stage = Stage::with(SHUT);
    let answer = from_sandbox(CLIENT.v4, answer(TcpFlags::SYN_ACK)).frame();
    stage.judge(&[
        into("a client connects", Elsewhere, to_sandbox(CLIENT.v4, syn()), Delivered),
        out("the handshake", answer.clone(), Reply),
    ]);
    stage.kernel.sandbox(Some(SANDBOX.mac), &[SANDBOX.v4.into()]).expect("the slot is prepared");
    let outcome = stage.kernel.from_sandbox(answer.bytes()).expect("the gate runs");
    assert_eq!(outcome.reason, Some(NoPolicy));
    stage.publish(SHUT);
    let outcome = stage.kernel.from_sandbox(answer.bytes()).expect("the gate runs");
    assert_eq!(outcome.reason, Some(DenyOut));
}
