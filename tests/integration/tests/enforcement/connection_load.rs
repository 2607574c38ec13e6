//! Many connections. The tests with many sandboxes are in `adoption`.

use std::net::Ipv4Addr;

use policy_testbed::{
    network::host_router::UPLINK_INTERFACE,
    packet_socket::{FrameBuilder, PacketSocket},
    packets::IpPayload,
    probe, test_servers,
    testbed::{OrFail as _, SharedTestbed},
};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

/// Opens far more connections than the kernel tracks. Unused ones must be evicted first.
#[test]
fn a_flood_of_openings_does_not_end_a_connection_in_use() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&[]);
    let servers = test_servers::TestServers::start(&sandbox.namespace, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    let (internet, host) = (&sandbox.testbed.network.internet, &sandbox.testbed.network.host);
    let to = (sandbox.addressing.v4(), test_servers::ECHO_PORT).into();
    let mut stream = probe::connect(internet, to).or_fail("connecting");
    let wire = PacketSocket::open(internet, UPLINK_INTERFACE).or_fail("a packet socket");
    let gateway = host.interface_mac(UPLINK_INTERFACE).or_fail("the host's MAC");
    for round in 0..40 {
        let v4 = Ipv4Addr::new(203, 0, 113, 100 + round);
        let stranger =
            FrameBuilder { mac: [2, 0, 0, 0, 0, 7], gateway, v4, v6: sandbox.addressing.v6() };
        for port in 10_000..15_000 {
            let opening = IpPayload::syn(port, test_servers::CLOSED_PORT);
            wire.send(&stranger.frame_payload(sandbox.addressing.v4().into(), opening))
                .or_fail("sending");
        }
        probe::echo(&mut stream, b"still here").or_fail("the connection in use");
    }
}
