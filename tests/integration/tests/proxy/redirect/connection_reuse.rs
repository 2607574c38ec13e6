//! The start and end of connections: reused ports and full queues.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use policy_agent::dataplane::RedirectListeners;
use policy_common::reason::Reason;
use policy_integration::program_runner;
use policy_testbed::{
    network::{TestNetwork, sandbox::SANDBOX_INTERFACE},
    packet_socket::{FrameBuilder, PacketSocket},
    packets::{IpDatagram, IpPayload},
    testbed::OrFail as _,
    wait::eventually,
};

use super::redirect_testbed::{
    DOMAIN_NETWORK, RedirectTestbed, UNNAMED_ADDRESSES, accept_redirected, assert_carries,
    assert_no_pending_connection, bind_host_service, connect_from, listener_of_family,
    socket_address,
};

/// Opens a connection from a port and closes it first at the proxy's end, which then waits in
/// TIME_WAIT.
fn connect_and_close(stage: &RedirectTestbed, door: &RedirectListeners, from: u16, to: SocketAddr) {
    let own = stage.sandbox.addresses()[usize::from(to.is_ipv6())];
    let inside = &stage.sandbox.namespace;
    let mut client = connect_from(inside, SocketAddr::new(own, from), to.ip(), to.port());
    let mut outside = accept_redirected(listener_of_family(door, to.is_ipv6()));
    assert_eq!(outside.local_addr().or_fail("its own address"), to);
    assert_carries(&mut client, &mut outside);
    drop(outside);
    assert_eq!(client.read(&mut [0; 1]).or_fail("reading the end"), 0);
}

fn assert_port_reusable(stage: &RedirectTestbed) {
    let door = stage.open_proxy_listeners();
    for address in UNNAMED_ADDRESSES {
        connect_and_close(stage, &door, 41_000, socket_address(address, 443));
        let again = (0..4).map(|_| {
            let begin = Instant::now();
            connect_and_close(stage, &door, 41_000, socket_address(address, 443));
            begin.elapsed()
        });
        // If the client had to retransmit its SYN, each attempt would take a second. On a busy
        // machine some may take that long anyway, but not all.
        let fastest = again.min().or_fail("several attempts");
        assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    }
    assert_eq!(stage.packet_count(Reason::ProxyUnavailable), 0);
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let world = TestNetwork::build().or_fail("building a world");
    assert_port_reusable(&RedirectTestbed::in_network(&world, DOMAIN_NETWORK));
}

/// For a socket in TIME_WAIT, the kernel looks up a listener at the destination itself.
#[test]
fn a_port_that_is_used_again_does_not_lead_to_a_service_of_the_host() {
    let world = TestNetwork::build().or_fail("building a world");
    let service = bind_host_service(&world.host, 443);
    assert_port_reusable(&RedirectTestbed::in_network(&world, DOMAIN_NETWORK));
    assert_no_pending_connection(&service);
}

#[test]
fn syn_cookies_keep_a_flooded_listener_open() {
    let world = TestNetwork::build().or_fail("building a world");
    // The limit of the accept queue also applies to incomplete connections.
    world.host.sysctl("core/somaxconn", "8").or_fail("shortening queues");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let ghost = Ipv4Addr::new(10, 11, stage.sandbox.addressing.number, 77);
    let mut addresses = stage.sandbox.addresses().to_vec();
    addresses.push(ghost.into());
    let mac = Some(stage.sandbox.addressing.mac());
    program_runner::prepare_slot(&stage.dataplane, stage.slot, mac, &addresses)
        .or_fail("preparing a slot");
    stage.publish(DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    let wire =
        PacketSocket::open(&stage.sandbox.namespace, SANDBOX_INTERFACE).or_fail("a packet socket");
    let sender = FrameBuilder::for_sandbox(stage.sandbox.addressing);
    let to = socket_address("1.1.1.1", 443);
    for port in 20_000..20_064 {
        let datagram = IpDatagram::new(ghost, to.ip(), IpPayload::syn(port, 443));
        wire.send(&sender.frame_datagram(&datagram)).or_fail("sending a segment");
    }
    let cookies = || {
        let _inside = world.host.enter().ok()?;
        let table = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
        let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
        let place = lines.next()?.split(' ').position(|name| name == "SyncookiesSent")?;
        let sent: u64 = lines.next()?.split(' ').nth(place)?.parse().ok()?;
        (sent > 0).then_some(())
    };
    eventually("the queue is full and cookies are sent", cookies).or_fail("flooding");
    let (mut inside, mut outside) = stage.connect_via_listeners(&door, to);
    assert_carries(&mut inside, &mut outside);
}

#[test]
fn syn_cookies_alone_are_enough() {
    let world = TestNetwork::build().or_fail("building a world");
    world.host.sysctl("ipv4/tcp_syncookies", "2").or_fail("asking for cookies");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for address in UNNAMED_ADDRESSES {
        let (mut inside, mut outside) =
            stage.connect_via_listeners(&door, socket_address(address, 443));
        assert_carries(&mut inside, &mut outside);
    }
}
