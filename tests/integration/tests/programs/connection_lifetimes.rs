//! Which connections count as inbound, and for how long: simultaneous opens, ends, and floods.

use std::net::IpAddr;

use policy_common::{
    bpf_names::INBOUND_DATAGRAM,
    reason::Reason::{Delivered, DenyOut, NoRule, PlatformAllow, PlatformDeny, Reply},
};
use policy_oracle::InboundOrigin::{Forwarded, Host};
use policy_testbed::packets::{
    IpPayload, TcpFlags,
    test_hosts::{CLIENT, GATEWAY, SANDBOX, SERVER},
};

use super::datapath_case::{
    DENY_ALL, DatapathCase, DatapathSettings, datagram_from_sandbox, datagram_to_sandbox,
    floor_lists, receives, sends,
};

const CLIENT_PORT: u16 = 51_000;

fn client_syn() -> IpPayload {
    IpPayload::syn(CLIENT_PORT, 80)
}

fn service_segment(flags: TcpFlags) -> IpPayload {
    IpPayload::tcp(80, CLIENT_PORT, flags)
}

#[test]
fn a_simultaneous_open_stays_outbound() {
    for peer in [IpAddr::from(CLIENT.v4), CLIENT.v6.into()] {
        let out = |flags| datagram_from_sandbox(peer, IpPayload::tcp(4000, 9000, flags));
        let syn = || datagram_to_sandbox(peer, IpPayload::syn(9000, 4000));
        let mut stage = DatapathCase::with_network("{}");
        stage.assert_steps(&[
            sends("the sandbox opens", out(TcpFlags::SYN), NoRule),
            receives("so does its peer", Forwarded, syn(), Delivered),
            sends("the handshake", out(TcpFlags::SYN_ACK), NoRule),
        ]);
        stage.publish(DENY_ALL);
        stage.assert_steps(&[
            sends("data after a tightening", out(TcpFlags::ACK), DenyOut),
            receives("the peer opens again", Forwarded, syn(), Delivered),
            sends("the handshake", out(TcpFlags::SYN_ACK), DenyOut),
        ]);
        // Each SYN of the peer extends the time, since connection tracking then waits again.
        stage.wait(100);
        stage.assert_steps(&[receives("and again", Forwarded, syn(), Delivered)]);
        stage.wait(100);
        stage.assert_steps(&[
            receives("and again", Forwarded, syn(), Delivered),
            sends("the handshake", out(TcpFlags::SYN_ACK), DenyOut),
            receives("the host itself opens it", Host, syn(), Delivered),
            sends("its handshake", out(TcpFlags::SYN_ACK), Reply),
        ]);
    }
}

#[test]
fn a_connection_that_the_sandbox_closed_stays_outbound() {
    let out = |flags| datagram_from_sandbox(CLIENT.v4, IpPayload::tcp(4000, 9000, flags));
    let syn = || datagram_to_sandbox(CLIENT.v4, IpPayload::syn(9000, 4000));
    let mut stage = DatapathCase::with_network("{}");
    stage.assert_steps(&[sends("its end", out(TcpFlags::FIN), NoRule)]);
    stage.publish(DENY_ALL);
    stage.assert_steps(&[
        receives("its peer opens it again", Forwarded, syn(), Delivered),
        sends("the handshake", out(TcpFlags::SYN_ACK), DenyOut),
    ]);
}

#[test]
fn an_own_syn_ends_the_inbound_connection_with_its_ports() {
    let mut stage = DatapathCase::with_network("{}");
    stage.assert_steps(&[
        receives(
            "a client connects",
            Forwarded,
            datagram_to_sandbox(CLIENT.v4, client_syn()),
            Delivered,
        ),
        sends(
            "the sandbox opens the same",
            datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::SYN)),
            NoRule,
        ),
    ]);
    stage.publish(DENY_ALL);
    let data = datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::ACK));
    stage.assert_steps(&[sends("data", data, DenyOut)]);
}

/// A sandbox cannot make the kernel forget one of its connections by opening many others.
#[test]
fn a_flood_of_own_connections_hides_none() {
    let mut stage = DatapathCase::with_network("{}");
    let out = |flags| datagram_from_sandbox(CLIENT.v4, IpPayload::tcp(4000, 9000, flags));
    stage.assert_steps(&[sends("the sandbox opens", out(TcpFlags::SYN), NoRule)]);
    let gates = stage.programs.gates();
    for port in 1..=12_000 {
        let other = datagram_from_sandbox(SERVER.v4, IpPayload::syn(port, 80)).to_frame();
        gates.pass_from_sandbox(other.bytes()).expect("the gate runs");
    }
    let syn = datagram_to_sandbox(CLIENT.v4, IpPayload::syn(9000, 4000));
    stage.assert_steps(&[receives("its peer opens it", Forwarded, syn, Delivered)]);
    stage.publish(DENY_ALL);
    stage.assert_steps(&[sends("the handshake", out(TcpFlags::SYN_ACK), DenyOut)]);
}

#[test]
fn an_inbound_connection_ends_by_idleness() {
    let mut stage = DatapathCase::with_network(DENY_ALL);
    let data = || datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::ACK));
    let syn = || datagram_to_sandbox(CLIENT.v4, client_syn());
    stage.assert_steps(&[receives("a client connects", Forwarded, syn(), Delivered)]);
    for _ in 0..3 {
        stage.wait(4 * 86_400);
        stage.assert_steps(&[sends("data after four days", data(), Reply)]);
    }
    stage.wait_until_over(5 * 86_400 + 1);
    stage.assert_steps(&[sends("data after five days", data(), DenyOut)]);

    let host = GATEWAY.v4;
    let answer = || datagram_from_sandbox(host, IpPayload::udp(4000, 53, b""));
    let question = datagram_to_sandbox(host, IpPayload::udp(53, 4000, b""));
    stage.assert_steps(&[receives("the host asks", Host, question, Delivered)]);
    for _ in 0..3 {
        stage.wait(290);
        stage.assert_steps(&[sends("an answer", answer(), Reply)]);
    }
    stage.wait_until_over(301);
    stage.assert_steps(&[sends("an answer after five minutes", answer(), PlatformDeny)]);
}

#[test]
fn an_inbound_connection_ends_with_a_reset_or_both_fins() {
    let to_client = |flags| datagram_from_sandbox(CLIENT.v4, service_segment(flags));
    let from_client =
        |flags| datagram_to_sandbox(CLIENT.v4, IpPayload::tcp(CLIENT_PORT, 80, flags));
    let connect = || {
        [
            receives("a client connects", Forwarded, from_client(TcpFlags::SYN), Delivered),
            sends("data", to_client(TcpFlags::ACK), Reply),
        ]
    };
    let mut stage = DatapathCase::with_network(DENY_ALL);
    stage.assert_steps(&connect());
    stage.assert_steps(&[
        sends("a reset", to_client(TcpFlags::RST), Reply),
        sends("the same again", to_client(TcpFlags::RST), Reply),
    ]);
    stage.wait_until_over(121);
    stage.assert_steps(&[sends("data after the reset", to_client(TcpFlags::ACK), DenyOut)]);

    stage.assert_steps(&connect());
    stage.assert_steps(&[receives("a FIN", Forwarded, from_client(TcpFlags::FIN), Delivered)]);
    stage.wait(3600);
    stage.assert_steps(&[
        sends("data in the half that is open", to_client(TcpFlags::ACK), Reply),
        sends("the other FIN", to_client(TcpFlags::FIN), Reply),
        sends("the same again", to_client(TcpFlags::FIN), Reply),
    ]);
    stage.wait_until_over(121);
    stage.assert_steps(&[sends("data after both FINs", to_client(TcpFlags::ACK), DenyOut)]);

    // Anybody who forges the client's address can send a reset, so the sandbox may contradict.
    stage.assert_steps(&connect());
    let reset = || receives("a reset", Forwarded, from_client(TcpFlags::RST), Delivered);
    stage.assert_steps(&[reset(), sends("data goes on", to_client(TcpFlags::ACK), Reply)]);
    stage.wait(3600);
    stage.assert_steps(&[sends("and on", to_client(TcpFlags::ACK), Reply), reset()]);
    stage.wait_until_over(121);
    stage.assert_steps(&[sends("data after silence", to_client(TcpFlags::ACK), DenyOut)]);
}

#[test]
fn one_sandbox_does_not_displace_connections_of_another() {
    let mut stage = DatapathCase::with_network(DENY_ALL);
    let connect = datagram_to_sandbox(CLIENT.v4, client_syn());
    let ask = datagram_to_sandbox(GATEWAY.v4, IpPayload::udp(53, 4000, b""));
    stage.assert_steps(&[
        receives("a client connects", Forwarded, connect, Delivered),
        receives("the host asks", Host, ask, Delivered),
    ]);
    let other = stage.programs.open_second_sandbox(&[SANDBOX.v4.into()]).expect("another sandbox");
    for pair in 0..150_000_u32 {
        let [_, low, high, _] = pair.to_be_bytes();
        let port = 1 + u16::try_from(pair % 60_000).expect("a port");
        let payload = IpPayload::udp(53 + u16::from(high), port, b"");
        let flood = datagram_to_sandbox([10, 12, 0, low], payload).to_frame();
        other.pass_to_sandbox(flood.bytes(), Host).expect("the gate runs");
        if pair % 16 == 0 {
            let payload = IpPayload::syn(port, 80);
            let flood = datagram_to_sandbox([10, 12, high, low], payload).to_frame();
            other.pass_to_sandbox(flood.bytes(), Forwarded).expect("the gate runs");
        }
    }
    let data = datagram_from_sandbox(CLIENT.v4, service_segment(TcpFlags::ACK));
    let answer = datagram_from_sandbox(GATEWAY.v4, IpPayload::udp(4000, 53, b""));
    stage.assert_steps(&[sends("data", data, Reply), sends("an answer", answer, Reply)]);
    let kept = stage.programs.count_flows(INBOUND_DATAGRAM).expect("flows");
    assert!(kept > 500 && kept <= 1 + 16 * 56, "{kept} exchanges are kept");
}

#[test]
fn a_resolver_in_platform_allow_leaves_no_trace() {
    let gateway = GATEWAY.v4.to_string();
    let floor = floor_lists(&[&gateway], &["10.0.0.0/8"]);
    let setting = DatapathSettings { floor, ..DatapathSettings::default() };
    let mut stage = DatapathCase::with_settings(DENY_ALL, setting);
    let answer = datagram_to_sandbox(GATEWAY.v4, IpPayload::udp(53, 4000, b""));
    let question = || datagram_from_sandbox(GATEWAY.v4, IpPayload::udp(4000, 53, b""));
    stage.assert_steps(&[
        sends("a question", question(), PlatformAllow),
        receives("the resolver answers", Host, answer, Delivered),
        sends("another question", question(), PlatformAllow),
    ]);
    assert_eq!(stage.programs.count_flows(INBOUND_DATAGRAM).expect("flows"), 0);
}
