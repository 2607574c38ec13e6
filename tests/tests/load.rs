//! Many connections. Many sandboxes are in `adoption`.

use std::net::Ipv4Addr;

use policy_tests::{
    packet::Payload,
    probe, server,
    stage::{OrFail as _, Shared},
    wire::{Sender, Wire},
    world::host::UPLINK,
};

static STAGE: Shared = Shared::with("");

/// Far more connections than the kernel remembers: those that nobody uses make way.
#[test]
fn a_flood_of_openings_does_not_end_a_connection_in_use() {
    let sandbox = STAGE.sandbox();
    sandbox.may_only_reach(&[]);
    let servers = server::Servers::start(&sandbox.inside, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    let (internet, host) = (&sandbox.stage.world.internet, &sandbox.stage.world.host);
    let to = (sandbox.identity.v4(), server::ECHO).into();
    let mut stream = probe::connect(internet, to).or_fail("connecting");
    let wire = Wire::open(internet, UPLINK).or_fail("a packet socket");
    let gateway = host.mac(UPLINK).or_fail("the host's MAC");
    for round in 0..40 {
        let v4 = Ipv4Addr::new(203, 0, 113, 100 + round);
        let stranger = Sender { mac: [2, 0, 0, 0, 0, 7], gateway, v4, v6: sandbox.identity.v6() };
        for port in 10_000..15_000 {
            let opening = Payload::syn(port, server::CLOSED);
            wire.send(&stranger.send(sandbox.identity.v4().into(), opening)).or_fail("sending");
        }
        probe::echo(&mut stream, b"still here").or_fail("the connection in use");
    }
}
