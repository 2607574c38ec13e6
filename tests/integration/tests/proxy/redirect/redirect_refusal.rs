//! Without a proxy nothing passes, and the sandbox is refused immediately.

use std::process::Command;

use policy_common::reason::Reason;
use policy_integration::program_runner;
use policy_testbed::{
    network::{
        TestNetwork,
        bridged_sandbox::{self, NEIGHBOR_INTERFACE, NEIGHBOR_MAC},
        command,
        host_router::UPLINK_INTERFACE,
        sandbox::SANDBOX_INTERFACE,
    },
    packet_socket::{FrameBuilder, PacketSocket, PacketView, contains_bytes},
    test_servers,
    testbed::{OrFail as _, parse_ip},
};

use super::redirect_testbed::{
    DOMAIN_NETWORK, RedirectTestbed, UNNAMED_ADDRESSES, assert_no_pending_connection,
    listener_of_family, socket_address, wait_until,
};

#[test]
fn without_proxy_listeners_it_is_refused() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    for address in UNNAMED_ADDRESSES {
        stage.assert_proxy_unavailable(socket_address(address, 443));
    }
    let _door = stage.open_proxy_listeners();
    stage.dataplane.close_listeners(stage.slot).or_fail("closing the listeners");
    for address in UNNAMED_ADDRESSES {
        stage.assert_proxy_unavailable(socket_address(address, 443));
    }
    stage.dataplane.close_listeners(stage.slot).or_fail("closing closed listeners");
}

#[test]
fn a_dropped_listener_refuses() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    drop(stage.open_proxy_listeners());
    for address in UNNAMED_ADDRESSES {
        stage.assert_proxy_unavailable(socket_address(address, 443));
    }
    let door = stage.open_proxy_listeners();
    for address in UNNAMED_ADDRESSES {
        stage.connect_via_listeners(&door, socket_address(address, 443));
    }
}

#[test]
fn a_released_slot_has_no_proxy_listeners() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let _door = stage.open_proxy_listeners();
    stage.dataplane.release_slot(stage.slot).or_fail("releasing");
    let mac = Some(stage.sandbox.addressing.mac());
    let addresses = stage.sandbox.addresses();
    program_runner::prepare_slot(&stage.dataplane, stage.slot, mac, &addresses)
        .or_fail("preparing a slot");
    stage.publish(DOMAIN_NETWORK);
    stage.assert_proxy_unavailable(socket_address("1.1.1.1", 443));
}

/// Another program deletes the routing rules: a packet with an assigned socket is not forwarded.
#[test]
fn without_the_routing_rules_nothing_crosses() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for family in ["-4", "-6"] {
        let mut ip = Command::new("ip");
        ip.args(["-n", world.host.name(), family, "rule", "del", "pref", "97"]);
        command::run(&mut ip).or_fail("removing a rule");
    }
    let beyond = PacketSocket::open(&world.internet, UPLINK_INTERFACE).or_fail("a packet socket");
    let inside =
        PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
    let sender = FrameBuilder::for_sandbox(stage.sandbox.addressing);
    for address in UNNAMED_ADDRESSES {
        inside.send(&sender.syn(parse_ip(address), 443)).or_fail("sending a segment");
    }
    let marker = sender.udp(parse_ip("203.0.113.11"), test_servers::CLOSED_PORT, b"<<marker>>");
    inside.send(&marker).or_fail("sending the marker");
    let seen =
        beyond.receive_until(|frame| contains_bytes(frame, b"<<marker>>")).or_fail("the marker");
    assert_eq!(tcp_frame_count(&seen), 0);
    assert_no_pending_connection(listener_of_family(&door, false));
    assert_no_pending_connection(listener_of_family(&door, true));
    let door = stage.open_proxy_listeners();
    stage.connect_via_listeners(&door, socket_address("1.1.1.1", 443));
}

/// A frame to another host on the bridge may cross before the host's network stack receives it.
#[test]
fn a_frame_to_a_neighbor_on_a_bridge_is_not_redirected() {
    let world = TestNetwork::build().or_fail("building a world");
    let (sandbox, neighbour) =
        bridged_sandbox::bridged_sandbox_with_neighbor(&world).or_fail("building a bridge");
    let identity = sandbox.addressing;
    let stage = RedirectTestbed::around_sandbox(sandbox, &world.host, DOMAIN_NETWORK);
    let _door = stage.open_proxy_listeners();
    let inside =
        PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
    let beyond =
        PacketSocket::open(&neighbour.namespace, NEIGHBOR_INTERFACE).or_fail("a packet socket");
    let me = FrameBuilder { gateway: NEIGHBOR_MAC, ..FrameBuilder::for_sandbox(identity) };
    for address in UNNAMED_ADDRESSES {
        inside.send(&me.syn(parse_ip(address), 443)).or_fail("sending a segment");
    }
    let marker = me.udp(parse_ip("203.0.113.11"), test_servers::CLOSED_PORT, b"<<marker>>");
    inside.send(&marker).or_fail("sending the marker");
    let seen =
        beyond.receive_until(|frame| contains_bytes(frame, b"<<marker>>")).or_fail("the marker");
    assert_eq!(tcp_frame_count(&seen), 0, "{seen:?}");
    assert_eq!(stage.packet_count(Reason::ProxyUnavailable), 2);
    assert_eq!(stage.packet_count(Reason::ByName), 0);
}

#[test]
fn a_frame_to_another_mac_or_to_all_is_not_redirected() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    let inside =
        PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
    let genuine = FrameBuilder::for_sandbox(stage.sandbox.addressing);
    for gateway in [[0x02, 0xfe, 0, 0, 0, 0xfe], [0xff; 6], [0x01, 0, 0x5e, 0, 0, 1]] {
        for address in UNNAMED_ADDRESSES {
            let before = stage.packet_count(Reason::ProxyUnavailable);
            let frame = FrameBuilder { gateway, ..genuine }.syn(parse_ip(address), 443);
            inside.send(&frame).or_fail("sending a segment");
            wait_until("it is refused", || {
                stage.packet_count(Reason::ProxyUnavailable) == before + 1
            });
        }
    }
    assert_no_pending_connection(listener_of_family(&door, false));
    assert_no_pending_connection(listener_of_family(&door, true));
}

/// The number of TCP frames.
fn tcp_frame_count(frames: &[Vec<u8>]) -> usize {
    const TCP_PROTOCOL: u8 = 6;
    let views = frames.iter().filter_map(|frame| PacketView::parse(frame));
    views.filter(|view| view.protocol == TCP_PROTOCOL).count()
}
