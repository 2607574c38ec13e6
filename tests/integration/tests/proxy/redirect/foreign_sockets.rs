//! Sockets of the host that do not belong to the proxy: a redirected sandbox cannot reach them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use policy_common::reason::Reason;
use policy_testbed::{
    network::{
        TestNetwork, host_router,
        sandbox::{SANDBOX_INTERFACE, format_mac},
    },
    packet_socket::{FrameBuilder, PacketSocket, PacketView, SOURCE_PORT},
    packets::{IpPayload, TcpFlags},
    testbed::OrFail as _,
    wait::eventually,
};

use super::redirect_testbed::{
    DOMAIN_NETWORK, RedirectTestbed, accept_redirected, assert_carries,
    assert_no_pending_connection, bind_host_service, listener_of_family, wait_until,
};

/// The host's uplink addresses.
fn host_uplink_addresses() -> [SocketAddr; 2] {
    [(host_router::HOST_UPLINK_V4, 443).into(), (host_router::HOST_UPLINK_V6, 443).into()]
}

#[test]
fn a_service_of_the_host_is_not_reached() {
    let world = TestNetwork::build().or_fail("building a world");
    let service = bind_host_service(&world.host, 443);
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    for to in host_uplink_addresses() {
        stage.assert_proxy_unavailable(to);
    }
    let door = stage.open_proxy_listeners();
    for to in host_uplink_addresses() {
        let (mut inside, mut outside) = stage.connect_via_listeners(&door, to);
        assert_carries(&mut inside, &mut outside);
    }
    assert_no_pending_connection(&service);
}

#[test]
fn a_connection_from_before_the_policy_ends() {
    let world = TestNetwork::build().or_fail("building a world");
    let service = bind_host_service(&world.host, 443);
    let stage = RedirectTestbed::in_network(&world, "{}");
    let connections = host_uplink_addresses().map(|to| {
        let mut inside = stage.connect_from_sandbox(to);
        let mut served = accept_redirected(&service);
        assert_carries(&mut inside, &mut served);
        (inside, served)
    });
    let door = stage.open_proxy_listeners();
    stage.publish(DOMAIN_NETWORK);
    for (mut inside, mut served) in connections {
        let before = stage.packet_count(Reason::ProxyUnavailable);
        inside.write_all(b"after").or_fail("writing into the buffer");
        let error = inside.read(&mut [0; 1]).expect_err("it is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(stage.packet_count(Reason::ProxyUnavailable) > before);
        served.set_nonblocking(true).or_fail("a socket that does not block");
        let error = served.read(&mut [0; 1]).expect_err("nothing arrives");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    assert_no_pending_connection(listener_of_family(&door, false));
}

/// The third segment of a handshake with a service of the host. The policy allowed the first
/// segment.
#[test]
fn a_handshake_from_before_the_policy_is_not_completed() {
    let world = TestNetwork::build().or_fail("building a world");
    let service = bind_host_service(&world.host, 443);
    let stage = RedirectTestbed::in_network(&world, "{}");
    let _door = stage.open_proxy_listeners();
    let wire =
        PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
    // Prevents the sandbox's own kernel from resetting a connection that it does not know.
    let sender = FrameBuilder::for_sandbox(stage.sandbox.addressing);
    let ghost = sender.v4;
    stage
        .sandbox
        .namespace
        .ip_batch(&format!("addr del {ghost}/24 dev {SANDBOX_INTERFACE}"))
        .or_fail("an address");
    let mac = format_mac(sender.mac);
    let known = format!("neigh replace {ghost} dev {} lladdr {mac}", stage.sandbox.interface);
    world.host.ip_batch(&known).or_fail("telling the host of the sandbox");
    let to = host_uplink_addresses()[0];
    wire.send(&sender.syn(to.ip(), to.port())).or_fail("sending a segment");
    let answer = || {
        let frame = wire.try_receive().ok().flatten()?;
        let view = PacketView::parse(&frame)
            .filter(|view| view.source == to.ip() && view.protocol == 6)?;
        Some(u32::from_be_bytes(*view.payload.get(4..)?.first_chunk()?))
    };
    let theirs = eventually("the service answers", answer).or_fail("the second segment");
    stage.publish(DOMAIN_NETWORK);
    let theirs = theirs.wrapping_add(1).to_be_bytes();
    let segment = IpPayload::tcp(SOURCE_PORT, to.port(), TcpFlags::ACK)
        .with_data(b"a secret")
        .with_bytes_at(8, &theirs);
    let before = stage.packet_count(Reason::ProxyUnavailable);
    wire.send(&sender.frame_payload(to.ip(), segment)).or_fail("sending a segment");
    wait_until("it is refused", || stage.packet_count(Reason::ProxyUnavailable) > before);
    assert_no_pending_connection(&service);
}
