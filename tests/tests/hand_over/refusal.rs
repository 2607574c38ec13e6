//! Without a proxy nothing goes anywhere, and the sandbox learns it at once.

use std::process::Command;

use policy_common::reason::Reason;
use policy_tests::{
    kernel, server,
    stage::{OrFail as _, ip},
    wire::{Sender, View, Wire, carries},
    world::{
        World,
        bridge::{self, NEIGHBOUR_LINK, NEIGHBOUR_MAC},
        command,
        host::UPLINK,
        sandbox::INSIDE,
    },
};

use super::stage::{NAMES, SOMEWHERE, Stage, at, is_quiet, listener, soon};

#[test]
fn without_a_door_it_is_refused() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    for address in SOMEWHERE {
        stage.is_without_proxy(at(address, 443));
    }
    let _door = stage.open_door();
    stage.dataplane.close_door(stage.slot).or_fail("closing the door");
    for address in SOMEWHERE {
        stage.is_without_proxy(at(address, 443));
    }
    stage.dataplane.close_door(stage.slot).or_fail("closing a door that is closed");
}

#[test]
fn a_listener_that_is_dropped_refuses() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    drop(stage.open_door());
    for address in SOMEWHERE {
        stage.is_without_proxy(at(address, 443));
    }
    let door = stage.open_door();
    for address in SOMEWHERE {
        stage.connect_through(&door, at(address, 443));
    }
}

#[test]
fn a_slot_that_is_released_has_no_door() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let _door = stage.open_door();
    stage.dataplane.release(stage.slot).or_fail("releasing");
    let mac = Some(stage.sandbox.identity.mac());
    let addresses = stage.sandbox.addresses();
    kernel::prepare(&stage.dataplane, stage.slot, mac, &addresses).or_fail("preparing a slot");
    stage.publish(NAMES);
    stage.is_without_proxy(at("1.1.1.1", 443));
}

/// Somebody takes the routing rules away: what has a socket is not forwarded.
#[test]
fn without_the_routing_rules_nothing_crosses() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let door = stage.open_door();
    for family in ["-4", "-6"] {
        let mut ip = Command::new("ip");
        ip.args(["-n", world.host.name(), family, "rule", "del", "pref", "97"]);
        command::run(&mut ip).or_fail("removing a rule");
    }
    let beyond = Wire::open(&world.internet, UPLINK).or_fail("a packet socket");
    let inside = Wire::open(&stage.sandbox.inside, INSIDE).or_fail("a packet socket");
    let sender = Sender::genuine(stage.sandbox.identity);
    for address in SOMEWHERE {
        inside.send(&sender.syn(ip(address), 443)).or_fail("sending a segment");
    }
    let marker = sender.udp(ip("203.0.113.11"), server::CLOSED, b"<<marker>>");
    inside.send(&marker).or_fail("sending the marker");
    let seen = beyond.until(|frame| carries(frame, b"<<marker>>")).or_fail("the marker");
    assert_eq!(segments(&seen), 0);
    is_quiet(listener(&door, false));
    is_quiet(listener(&door, true));
    let door = stage.open_door();
    stage.connect_through(&door, at("1.1.1.1", 443));
}

/// To whom else a frame is, it may cross a bridge before the host's stack sees it.
#[test]
fn a_frame_to_a_neighbour_on_a_bridge_is_not_handed_over() {
    let world = World::build().or_fail("building a world");
    let (sandbox, neighbour) = bridge::sandbox_with_neighbour(&world).or_fail("building a bridge");
    let identity = sandbox.identity;
    let stage = Stage::around(sandbox, &world.host, NAMES);
    let _door = stage.open_door();
    let inside = Wire::open(&stage.sandbox.inside, INSIDE).or_fail("a packet socket");
    let beyond = Wire::open(&neighbour.inside, NEIGHBOUR_LINK).or_fail("a packet socket");
    let me = Sender { gateway: NEIGHBOUR_MAC, ..Sender::genuine(identity) };
    for address in SOMEWHERE {
        inside.send(&me.syn(ip(address), 443)).or_fail("sending a segment");
    }
    let marker = me.udp(ip("203.0.113.11"), server::CLOSED, b"<<marker>>");
    inside.send(&marker).or_fail("sending the marker");
    let seen = beyond.until(|frame| carries(frame, b"<<marker>>")).or_fail("the marker");
    assert_eq!(segments(&seen), 0, "{seen:?}");
    assert_eq!(stage.counted(Reason::ProxyUnavailable), 2);
    assert_eq!(stage.counted(Reason::ByName), 0);
}

#[test]
fn a_frame_to_another_mac_or_to_all_is_not_handed_over() {
    let world = World::build().or_fail("building a world");
    let stage = Stage::with(&world, NAMES);
    let door = stage.open_door();
    let inside = Wire::open(&stage.sandbox.inside, INSIDE).or_fail("a packet socket");
    let genuine = Sender::genuine(stage.sandbox.identity);
    for gateway in [[0x02, 0xfe, 0, 0, 0, 0xfe], [0xff; 6], [0x01, 0, 0x5e, 0, 0, 1]] {
        for address in SOMEWHERE {
            let before = stage.counted(Reason::ProxyUnavailable);
            let frame = Sender { gateway, ..genuine }.syn(ip(address), 443);
            inside.send(&frame).or_fail("sending a segment");
            soon("it is refused", || stage.counted(Reason::ProxyUnavailable) == before + 1);
        }
    }
    is_quiet(listener(&door, false));
    is_quiet(listener(&door, true));
}

/// How many of the frames are of TCP.
fn segments(frames: &[Vec<u8>]) -> usize {
    const TCP: u8 = 6;
    let views = frames.iter().filter_map(|frame| View::of(frame));
    views.filter(|view| view.protocol == TCP).count()
}
