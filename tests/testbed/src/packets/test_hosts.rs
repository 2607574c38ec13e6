//! The hosts that send and receive in the tests.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::MacAddr;

/// A host with one address of each kind.
#[derive(Clone, Copy, Debug)]
pub struct TestHost {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// The sandbox whose gate is tested.
pub const SANDBOX: TestHost = TestHost {
    mac: [0x02, 0xfc, 0, 0, 0, 5],
    v4: Ipv4Addr::new(10, 11, 0, 5),
    v6: Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, 5),
};
/// A second IPv4 address of the sandbox.
pub const SANDBOX_SECOND_V4: Ipv4Addr = Ipv4Addr::new(10, 11, 0, 55);
/// The sandbox's link-local address, derived from its MAC.
pub const SANDBOX_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x00fc, 0xff, 0xfe00, 5);
/// The host's end of the sandbox's link.
pub const GATEWAY: TestHost = TestHost {
    mac: [0x02, 0xfe, 0, 0, 0, 5],
    v4: Ipv4Addr::new(10, 11, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, 1),
};
/// Another sandbox on the same link, which the first one may impersonate.
pub const NEIGHBOR: TestHost = TestHost {
    mac: [0x02, 0xfc, 0, 0, 0, 6],
    v4: Ipv4Addr::new(10, 11, 0, 6),
    v6: Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, 6),
};
/// A client on the internet that connects to the sandbox.
pub const CLIENT: TestHost = TestHost {
    mac: GATEWAY.mac,
    v4: Ipv4Addr::new(198, 51, 100, 7),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7),
};
/// A server on the internet.
pub const SERVER: TestHost = TestHost {
    mac: GATEWAY.mac,
    v4: Ipv4Addr::new(203, 0, 113, 10),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
};
/// Another server on the internet.
pub const OTHER_SERVER: TestHost = TestHost {
    mac: GATEWAY.mac,
    v4: Ipv4Addr::new(192, 0, 2, 99),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 99, 0, 0, 0, 0, 1),
};
/// The metadata service of cloud providers.
pub const METADATA_SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
