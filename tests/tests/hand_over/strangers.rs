//! Sockets of the host that are not the proxy's: a sandbox whose connections are handed over does
//! not come to them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use policy_common::reason::Reason;
use policy_tests::{
    packet::{Payload, TcpFlags},
    patience::eventually,
    stage::OrFail as _,
    wire::{FROM_PORT, Sender, View, Wire},
    world::{
        World, host,
        sandbox::{INSIDE, mac_text},
    },
};

use super::stage::{NAMES, Stage, accept, carries, is_quiet, listener, service, soon};

/// The host's addresses on the way to the internet.
fn hosts() -> [SocketAddr; 2] {
    [(host::HOST_V4, 443).into(), (host::HOST_V6, 443).into()]
}

#[test]
fn a_service_of_the_host_is_not_reached() {
    let world = World::build().or_fail("building a world");
    let service = service(&world.host, 443);
    let stage = Stage::with(&world, NAMES);
    for to in hosts() {
        stage.is_without_proxy(to);
    }
    let door = stage.open_door();
    for to in hosts() {
        let (mut inside, mut outside) = stage.connect_through(&door, to);
        carries(&mut inside, &mut outside);
    }
    is_quiet(&service);
}

#[test]
fn a_connection_from_before_the_policy_ends() {
    let world = World::build().or_fail("building a world");
    let service = service(&world.host, 443);
    let stage = Stage::with(&world, "{}");
    let connections = hosts().map(|to| {
        let mut inside = stage.connect(to);
        let mut served = accept(&service);
        carries(&mut inside, &mut served);
        (inside, served)
    });
    let door = stage.open_door();
    stage.publish(NAMES);
    for (mut inside, mut served) in connections {
        let before = stage.counted(Reason::ProxyUnavailable);
        inside.write_all(b"after").or_fail("writing into the buffer");
        let error = inside.read(&mut [0; 1]).expect_err("it is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(stage.counted(Reason::ProxyUnavailable) > before);
        served.set_nonblocking(true).or_fail("a socket that does not block");
        let error = served.read(&mut [0; 1]).expect_err("nothing arrives");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    is_quiet(listener(&door, false));
}

/// The third segment of a handshake with a service of the host, the first of which was allowed.
#[test]
fn a_handshake_from_before_the_policy_is_not_completed() {
    let world = World::build().or_fail("building a world");
    let service = service(&world.host, 443);
    let stage = Stage::with(&world, "{}");
    let _door = stage.open_door();
    let wire = Wire::open(&stage.sandbox.inside, INSIDE).or_fail("a packet socket");
    // The sandbox's own kernel would reset what it knows nothing of.
    let sender = Sender::genuine(stage.sandbox.identity);
    let ghost = sender.v4;
    stage.sandbox.inside.ip(&format!("addr del {ghost}/24 dev {INSIDE}")).or_fail("an address");
    let mac = mac_text(sender.mac);
    let known = format!("neigh replace {ghost} dev {} lladdr {mac}", stage.sandbox.interface);
    world.host.ip(&known).or_fail("telling the host of the sandbox");
    let to = hosts()[0];
    wire.send(&sender.syn(to.ip(), to.port())).or_fail("sending a segment");
    let answer = || {
        let frame = wire.next().ok().flatten()?;
        let view = View::of(&frame).filter(|view| view.source == to.ip() && view.protocol == 6)?;
        Some(u32::from_be_bytes(*view.payload.get(4..)?.first_chunk()?))
    };
    let theirs = eventually("the service answers", answer).or_fail("the second segment");
    stage.publish(NAMES);
    let theirs = theirs.wrapping_add(1).to_be_bytes();
    let segment =
        Payload::tcp(FROM_PORT, to.port(), TcpFlags::ACK).data(b"a secret").with(8, &theirs);
    let before = stage.counted(Reason::ProxyUnavailable);
    wire.send(&sender.send(to.ip(), segment)).or_fail("sending a segment");
    soon("it is refused", || stage.counted(Reason::ProxyUnavailable) > before);
    is_quiet(&service);
}
