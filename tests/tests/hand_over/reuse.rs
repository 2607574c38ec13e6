//! The ends and the beginnings of connections: ports that are used again, and queues that are full.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use policy_agent::dataplane::Door;
use policy_common::reason::Reason;
use policy_tests::{
    kernel,
    packet::{Datagram, Payload},
    patience::eventually,
    stage::OrFail as _,
    wire::{Sender, Wire},
    world::{World, sandbox::INSIDE},
};

use super::stage::{
    NAMES, SOMEWHERE, Stage, accept, at, carries, connect_from, is_quiet, listener, service,
};

/// Opens a connection from a port, and has the door's end close it first: that end waits in
/// TIME_WAIT then.
fn open_and_close(stage: &Stage, door: &Door, from: u16, to: SocketAddr) {
    let own = stage.sandbox.addresses()[usize::from(to.is_ipv6())];
    let inside = &stage.sandbox.inside;
    let mut client = connect_from(inside, SocketAddr::new(own, from), to.ip(), to.port());
    let mut outside = accept(listener(door, to.is_ipv6()));
    assert_eq!(outside.local_addr().or_fail("its own address"), to);
    carries(&mut client, &mut outside);
    drop(outside);
    assert_eq!(client.read(&mut [0; 1]).or_fail("reading the end"), 0);
}

fn a_port_can_be_used_again(stage: &Stage) {
    let door = stage.open_door();
    for address in SOMEWHERE {
        open_and_close(stage, &door, 41_000, at(address, 443));
        let again = (0..4).map(|_| {
            let begin = Instant::now();
            open_and_close(stage, &door, 41_000, at(address, 443));
            begin.elapsed()
        });
        // Each would wait for a second, if the client had to send its first segment again. On a busy machine
        // some may take as long, but not all.
        let fastest = again.min().or_fail("several attempts");
        assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    }
    assert_eq!(stage.counted(Reason::ProxyUnavailable), 0);
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let world = World::build().or_fail("building a world");
    a_port_can_be_used_again(&Stage::with(&world, NAMES));
}

/// For a socket in TIME_WAIT the kernel looks for a listener at the destination itself.
#[test]
fn a_port_that_is_used_again_does_not_lead_to_a_service_of_the_host() {
    let world = World::build().or_fail("building a world");
    let service = service(&world.host, 443);
    a_port_can_be_used_again(&Stage::with(&world, NAMES));
    is_quiet(&service);
}

#[test]
fn syn_cookies_keep_a_flooded_door_open() {
    let world = World::build().or_fail("building a world");
    // Its limit on connections that wait goes for those that are not made yet, too.
    world.host.sysctl("core/somaxconn", "8").or_fail("shortening queues");
    let stage = Stage::with(&world, NAMES);
    let ghost = Ipv4Addr::new(10, 11, stage.sandbox.identity.number, 77);
    let mut addresses = stage.sandbox.addresses().to_vec();
    addresses.push(ghost.into());
    let mac = Some(stage.sandbox.identity.mac());
    kernel::prepare(&stage.dataplane, stage.slot, mac, &addresses).or_fail("preparing a slot");
    stage.publish(NAMES);
    let door = stage.open_door();
    let wire = Wire::open(&stage.sandbox.inside, INSIDE).or_fail("a packet socket");
    let sender = Sender::genuine(stage.sandbox.identity);
    let to = at("1.1.1.1", 443);
    for port in 20_000..20_064 {
        let datagram = Datagram::new(ghost, to.ip(), Payload::syn(port, 443));
        wire.send(&sender.framed(&datagram)).or_fail("sending a segment");
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
    let (mut inside, mut outside) = stage.connect_through(&door, to);
    carries(&mut inside, &mut outside);
}

#[test]
fn syn_cookies_alone_are_enough() {
    let world = World::build().or_fail("building a world");
    world.host.sysctl("ipv4/tcp_syncookies", "2").or_fail("asking for cookies");
    let stage = Stage::with(&world, NAMES);
    let door = stage.open_door();
    for address in SOMEWHERE {
        let (mut inside, mut outside) = stage.connect_through(&door, at(address, 443));
        carries(&mut inside, &mut outside);
    }
}
