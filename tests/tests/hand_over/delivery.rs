//! What is handed over comes out of the door as it was sent; what is not goes past.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
};

use policy_agent::dataplane::Interface;
use policy_common::{policy::NO_RULE, reason::Reason};
use policy_tests::{
    packet::{Extension, Payload},
    patience::eventually,
    probe::{self, How, Seen},
    server::Servers,
    stage::{OrFail as _, ip},
    wire::{FROM_PORT, Sender, View, Wire},
    world::{World, host, internet, sandbox::INSIDE, slot::Slot},
};

use super::stage::{
    NAMES, SOMEWHERE, Stage, TUNNEL, accept, at, carries, connect_from, is_quiet, is_v6, listener,
    service,
};

#[test]
fn a_connection_comes_out_with_its_destination() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let door = stage.open_door();
    for (address, port) in SOMEWHERE.iter().flat_map(|it| [(it, 80), (it, 443)]) {
        let (mut inside, mut outside) = stage.connect_through(&door, at(address, port));
        carries(&mut inside, &mut outside);
        carries(&mut outside, &mut inside);
        inside.shutdown(Shutdown::Write).or_fail("closing one half");
        assert_eq!(outside.read(&mut [0; 1]).or_fail("reading the end"), 0);
        outside.write_all(b"still open").or_fail("writing into the other half");
        inside.read_exact(&mut [0; 10]).or_fail("reading from the other half");
    }
    assert!(stage.counted(Reason::ByName) > 0);
    assert_eq!(stage.counted(Reason::ProxyUnavailable), 0);
    assert_eq!(stage.counted(Reason::NoRule), 0);
}

#[test]
fn in_the_agents_own_namespace() {
    let world = World::build().or_fail("building a world");
    let mut stage = Stage::with(&world, NAMES);
    let _inside = world.host.enter().or_fail("entering the host");
    stage.interface = Interface { netns: None, ..stage.interface };
    let door = stage.open_door();
    for address in SOMEWHERE {
        let (mut inside, mut outside) = stage.connect_through(&door, at(address, 443));
        carries(&mut inside, &mut outside);
    }
    stage.dataplane.close_door(stage.slot).or_fail("closing the door");
}

#[test]
fn in_a_namespace_of_its_own() {
    let Slot { sandbox, namespace, .. } = Slot::build("own").or_fail("building a slot");
    let stage = Stage::around(sandbox, &namespace, NAMES);
    let door = stage.open_door();
    for address in SOMEWHERE {
        let (mut inside, mut outside) = stage.connect_through(&door, at(address, 443));
        carries(&mut inside, &mut outside);
        carries(&mut outside, &mut inside);
    }
}

#[test]
fn only_what_line_7_is_about_is_handed_over() {
    let world = World::build().or_fail("building a world");
    let _servers = Servers::start(&world.internet, &internet::addresses()).or_fail("servers");
    let stage = Stage::with(&world, NAMES);
    let door = stage.open_door();
    let tried = |how, address| probe::attempt(&stage.sandbox.inside, how, ip(address));
    for address in SOMEWHERE {
        assert_eq!(tried(How::Tcp(22), address), Seen::Refused);
        assert_eq!(tried(How::Udp(443), address), Seen::Prohibited);
    }
    for address in ["203.0.113.11", "2001:db8:1::2"] {
        assert_eq!(tried(How::Tcp(443), address), Seen::Answered, "line 6 comes first");
    }
    assert_eq!(tried(How::Tcp(443), "169.254.169.254"), Seen::Refused, "and the floor");
    assert_eq!(stage.counted(Reason::PlatformDeny), 1);
    assert_eq!(stage.counted(Reason::ByName), 0);
    is_quiet(listener(&door, false));
    is_quiet(listener(&door, true));
}

#[test]
fn a_tunnel_carries_every_port_that_is_let_out() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, TUNNEL);
    let door = stage.open_door();
    for address in SOMEWHERE {
        for port in [22, 443, 7000] {
            let (mut inside, mut outside) = stage.connect_through(&door, at(address, port));
            carries(&mut inside, &mut outside);
        }
    }
    let denied = probe::attempt(&stage.sandbox.inside, How::Tcp(22), ip("8.8.8.8"));
    assert_eq!(denied, Seen::Refused);
    assert_eq!((stage.counted(Reason::DenyOut), stage.counted(Reason::ByName)), (1, 0));
    assert!(stage.counted(Reason::NoRule) > 0, "the reason is the rule's own");
}

#[test]
fn the_hosts_own_address_is_handed_over_too() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let door = stage.open_door();
    for address in [host::HOST_V4.to_string(), host::HOST_V6.to_string()] {
        let (mut inside, mut outside) = stage.connect_through(&door, at(&address, 443));
        carries(&mut outside, &mut inside);
    }
}

#[test]
fn connections_towards_the_sandbox_are_answered_past_the_proxy() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let door = stage.open_door();
    for address in ["203.0.113.10", "2001:db8:1::1"] {
        let own = stage.sandbox.addresses()[usize::from(is_v6(address))];
        let service = service(&stage.sandbox.inside, 8080);
        // From port 443, so that the answers look like requests to a web server.
        let mut client = connect_from(&world.internet, at(address, 443), own, 8080);
        let mut served = accept(&service);
        carries(&mut client, &mut served);
        carries(&mut served, &mut client);
    }
    assert!(stage.counted(Reason::Reply) > 0);
    assert_eq!(stage.counted(Reason::ByName), 0);
    is_quiet(listener(&door, false));
}

#[test]
fn a_segment_behind_options_reaches_the_door() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let _door = stage.open_door();
    let wire = Wire::open(&stage.sandbox.inside, INSIDE).or_fail("a packet socket");
    let (sender, to) = (Sender::genuine(stage.sandbox.identity), ip(SOMEWHERE[1]));
    let segment = sender.datagram(to, Payload::syn(FROM_PORT, 443));
    let segment = segment.behind(Extension::destination_options(1));
    wire.send(&sender.framed(&segment)).or_fail("sending a segment");
    let answer = || {
        let frame = wire.next().ok().flatten()?;
        let flags = View::of(&frame).filter(|view| view.source == to)?.payload.get(13).copied()?;
        (flags == 0x12).then_some(())
    };
    eventually("the second segment of a handshake", answer).or_fail("listening");
}

#[test]
fn a_handed_over_connection_is_one_event() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let mut events = stage.dataplane.events().or_fail("events");
    stage.dataplane.report_flows(true).or_fail("asking for flows");
    let door = stage.open_door();
    let (mut inside, mut outside) = stage.connect_through(&door, at("1.1.1.1", 443));
    carries(&mut inside, &mut outside);
    let mut seen = Vec::new();
    events.drain(|event| seen.push((event.reason, event.destination_port, event.rule)));
    assert_eq!(seen, [(Reason::ByName as u8, 443, NO_RULE)]);
}
