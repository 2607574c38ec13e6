//! Redirected traffic reaches the proxy's listeners unchanged. Other traffic bypasses them.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
};

use policy_agent::dataplane::HostInterface;
use policy_common::{reason::Reason, verdict::NO_RULE};
use policy_testbed::{
    network::{
        TestNetwork, host_router, internet_addresses, namespaced_sandbox::NamespacedSandbox,
        sandbox::SANDBOX_INTERFACE,
    },
    packet_socket::{FrameBuilder, PacketSocket, PacketView, SOURCE_PORT},
    packets::{ETHERNET_HEADER_LEN, ExtensionHeader, IpDatagram, IpPayload, TcpFlags},
    probe::{self, ProbeKind, ProbeResult},
    test_servers::TestServers,
    testbed::{OrFail as _, parse_ip},
    wait::eventually,
};

use socket2::SockRef;

use super::redirect_testbed::{
    DOMAIN_NETWORK, EGRESS_PROXY_NETWORK, RedirectTestbed, UNNAMED_ADDRESSES, accept_redirected,
    assert_carries, assert_no_pending_connection, bind_host_service, connect_from, is_ipv6,
    listener_of_family, socket_address, wait_until,
};

#[test]
fn a_redirected_connection_keeps_its_destination() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for (address, port) in UNNAMED_ADDRESSES.iter().flat_map(|it| [(it, 80), (it, 443)]) {
        let (mut inside, mut outside) =
            stage.connect_via_listeners(&door, socket_address(address, port));
        assert_carries(&mut inside, &mut outside);
        assert_carries(&mut outside, &mut inside);
        inside.shutdown(Shutdown::Write).or_fail("closing one half");
        assert_eq!(outside.read(&mut [0; 1]).or_fail("reading the end"), 0);
        outside.write_all(b"still open").or_fail("writing into the other half");
        inside.read_exact(&mut [0; 10]).or_fail("reading from the other half");
    }
    assert!(stage.packet_count(Reason::ByName) > 0);
    assert_eq!(stage.packet_count(Reason::ProxyUnavailable), 0);
    assert_eq!(stage.packet_count(Reason::NoRule), 0);
}

#[test]
fn redirect_in_the_agents_own_namespace() {
    let world = TestNetwork::build().or_fail("building a world");
    let mut stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let _inside = world.host.enter().or_fail("entering the host");
    stage.interface = HostInterface { netns: None, ..stage.interface };
    let door = stage.open_proxy_listeners();
    for address in UNNAMED_ADDRESSES {
        let (mut inside, mut outside) =
            stage.connect_via_listeners(&door, socket_address(address, 443));
        assert_carries(&mut inside, &mut outside);
    }
    stage.dataplane.close_listeners(stage.slot).or_fail("closing the door");
}

#[test]
fn redirect_in_another_namespace() {
    let NamespacedSandbox { sandbox, namespace, .. } =
        NamespacedSandbox::build("own").or_fail("building a slot");
    let stage = RedirectTestbed::around_sandbox(sandbox, &namespace, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for address in UNNAMED_ADDRESSES {
        let (mut inside, mut outside) =
            stage.connect_via_listeners(&door, socket_address(address, 443));
        assert_carries(&mut inside, &mut outside);
        assert_carries(&mut outside, &mut inside);
    }
}

#[test]
fn only_line_7_is_redirected() {
    let world = TestNetwork::build().or_fail("building a world");
    let _servers = TestServers::start(&world.internet, &internet_addresses::all_addresses())
        .or_fail("servers");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    let tried = |how, address| probe::probe(&stage.sandbox.namespace, how, parse_ip(address));
    for address in UNNAMED_ADDRESSES {
        assert_eq!(tried(ProbeKind::Tcp(22), address), ProbeResult::Refused);
        assert_eq!(tried(ProbeKind::Udp(443), address), ProbeResult::Prohibited);
    }
    for address in ["203.0.113.11", "2001:db8:1::2"] {
        assert_eq!(
            tried(ProbeKind::Tcp(443), address),
            ProbeResult::Answered,
            "line 6 comes first"
        );
    }
    assert_eq!(
        tried(ProbeKind::Tcp(443), "169.254.169.254"),
        ProbeResult::Refused,
        "and the floor"
    );
    assert_eq!(stage.packet_count(Reason::PlatformDeny), 1);
    assert_eq!(stage.packet_count(Reason::ByName), 0);
    assert_no_pending_connection(listener_of_family(&door, false));
    assert_no_pending_connection(listener_of_family(&door, true));
}

#[test]
fn an_egress_proxy_gets_every_allowed_port() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, EGRESS_PROXY_NETWORK);
    let door = stage.open_proxy_listeners();
    for address in UNNAMED_ADDRESSES {
        for port in [22, 443, 7000] {
            let (mut inside, mut outside) =
                stage.connect_via_listeners(&door, socket_address(address, port));
            assert_carries(&mut inside, &mut outside);
        }
    }
    let denied = probe::probe(&stage.sandbox.namespace, ProbeKind::Tcp(22), parse_ip("8.8.8.8"));
    assert_eq!(denied, ProbeResult::Refused);
    assert_eq!((stage.packet_count(Reason::DenyOut), stage.packet_count(Reason::ByName)), (1, 0));
    assert!(stage.packet_count(Reason::NoRule) > 0, "the reason is the rule's own");
}

#[test]
fn the_hosts_own_address_is_redirected_too() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for address in
        [host_router::HOST_UPLINK_V4.to_string(), host_router::HOST_UPLINK_V6.to_string()]
    {
        let (mut inside, mut outside) =
            stage.connect_via_listeners(&door, socket_address(&address, 443));
        assert_carries(&mut outside, &mut inside);
    }
}

#[test]
fn inbound_connections_are_answered_past_the_proxy() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for (address, port) in [("203.0.113.10", 8080), ("2001:db8:1::1", 8081)] {
        let own = stage.sandbox.addresses()[usize::from(is_ipv6(address))];
        let service = bind_host_service(&stage.sandbox.namespace, port);
        // From port 443, so that the replies look like requests to a web server.
        let mut client = connect_from(&world.internet, socket_address(address, 443), own, port);
        let mut served = accept_redirected(&service);
        assert_carries(&mut client, &mut served);
        assert_carries(&mut served, &mut client);
    }
    assert!(stage.packet_count(Reason::Reply) > 0);
    assert_eq!(stage.packet_count(Reason::ByName), 0);
    assert_no_pending_connection(listener_of_family(&door, false));
}

#[test]
fn a_segment_behind_options_reaches_the_proxy_listener() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let _door = stage.open_proxy_listeners();
    let wire =
        PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
    let (sender, to) =
        (FrameBuilder::for_sandbox(stage.sandbox.addressing), parse_ip(UNNAMED_ADDRESSES[1]));
    let segment = sender.datagram_to(to, IpPayload::syn(SOURCE_PORT, 443));
    let segment = segment.with_extension(ExtensionHeader::destination_options(1));
    wire.send(&sender.frame_datagram(&segment)).or_fail("sending a segment");
    let answer = || {
        let frame = wire.try_receive().ok().flatten()?;
        let flags =
            PacketView::parse(&frame).filter(|view| view.source == to)?.payload.get(13).copied()?;
        (flags == 0x12).then_some(())
    };
    eventually("the second segment of a handshake", answer).or_fail("listening");
}

#[test]
fn a_redirected_connection_is_one_event() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let mut events = stage.dataplane.open_event_reader().or_fail("events");
    stage.dataplane.set_flow_reporting(true).or_fail("asking for flows");
    let door = stage.open_proxy_listeners();
    let (mut inside, mut outside) =
        stage.connect_via_listeners(&door, socket_address("1.1.1.1", 443));
    assert_carries(&mut inside, &mut outside);
    let mut seen = Vec::new();
    events.drain_events(|event| {
        seen.push((event.reason_code, event.destination_port, event.rule_index))
    });
    assert_eq!(seen, [(Reason::ByName as u8, 443, NO_RULE)]);
}

/// A router in the sandbox, behind which the MTU is smaller, tells the server about it. The server is
/// the proxy.
#[test]
fn a_router_in_the_sandbox_tells_the_proxy_the_mtu_of_a_path() {
    const MTU: u16 = 1300;
    const SEGMENT: &[u8] = b"a segment to quote";
    for network in [DOMAIN_NETWORK, EGRESS_PROXY_NETWORK] {
        let world = TestNetwork::build().or_fail("building a world");
        let stage = RedirectTestbed::in_network(&world, network);
        let door = stage.open_proxy_listeners();
        for address in UNNAMED_ADDRESSES {
            let wire = PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE)
                .or_fail("a packet socket");
            let to = socket_address(address, 443);
            let (mut inside, mut outside) = stage.connect_via_listeners(&door, to);
            outside.write_all(SEGMENT).or_fail("writing");
            inside.read_exact(&mut [0; SEGMENT.len()]).or_fail("reading");
            let quoted = || {
                let frame = wire.try_receive().ok().flatten()?;
                let view = PacketView::parse(&frame).filter(|view| view.source == to.ip())?;
                view.payload.ends_with(SEGMENT).then(|| frame[ETHERNET_HEADER_LEN..].to_vec())
            };
            let mut quoted = eventually("the segment passes by", quoted).or_fail("listening");
            // An acknowledged segment is too old; the next one is in flight.
            let number = if to.is_ipv6() { 40 + 4 } else { 20 + 4 };
            let sent = u32::from_be_bytes(*quoted[number..].first_chunk().or_fail("a number"));
            let next = sent.wrapping_add(u32::try_from(SEGMENT.len()).expect("short"));
            quoted[number..number + 4].copy_from_slice(&next.to_be_bytes());
            let mss = || SockRef::from(&outside).tcp_mss().or_fail("its segment size");
            assert!(mss() > u32::from(MTU));

            let [high, low] = MTU.to_be_bytes();
            let error = if to.is_ipv6() {
                IpPayload::icmpv6(2, 0, [0, 0, high, low], &quoted)
            } else {
                IpPayload::icmp(3, 4, [0, 0, high, low], &quoted)
            };
            let sender = FrameBuilder::for_sandbox(stage.sandbox.addressing);
            wire.send(&sender.frame_payload(to.ip(), error)).or_fail("sending an error");
            eventually("the proxy sends smaller segments", || {
                (mss() < u32::from(MTU)).then_some(())
            })
            .or_fail("waiting");
            assert_carries(&mut outside, &mut inside);
        }
        assert_eq!(stage.packet_count(Reason::DenyOut), 0);
    }
}

#[test]
fn an_error_about_another_connection_is_judged_by_its_destination() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let _door = stage.open_proxy_listeners();
    let wire =
        PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
    let sender = FrameBuilder::for_sandbox(stage.sandbox.addressing);
    for address in UNNAMED_ADDRESSES {
        let server = parse_ip(address);
        let own = stage.sandbox.addresses()[usize::from(server.is_ipv6())];
        let quoted = IpDatagram::new(server, own, IpPayload::tcp(443, 4000, TcpFlags::ACK));
        let error = IpPayload::icmp_unreachable(server, &quoted.to_packet());
        let before = stage.packet_count(Reason::DenyOut);
        wire.send(&sender.frame_payload(server, error)).or_fail("sending an error");
        wait_until("it is denied", || stage.packet_count(Reason::DenyOut) > before);
    }
    assert_eq!(stage.packet_count(Reason::ByName), 0);
}
