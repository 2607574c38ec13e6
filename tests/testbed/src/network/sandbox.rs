//! A sandbox: a namespace with one interface, whose other end stands in the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use serde_json::{Value, json};

use super::NetworkNamespace;

/// What all sandboxes' addresses lie in.
pub const SANDBOX_NETWORK_V4: &str = "10.11.0.0/16";
/// The same for IPv6.
pub const SANDBOX_NETWORK_V6: &str = "fd00:11::/32";
/// The interface inside a sandbox.
pub const SANDBOX_INTERFACE: &str = "eth0";

/// Indexes of the host's ends are above this.
const HOST_INDEX_BASE: u32 = 1000;

/// Addresses and names of a sandbox; all follow from its number.
#[derive(Clone, Copy, Debug)]
pub struct SandboxAddressing {
    /// From 1.
    pub number: u8,
}

impl SandboxAddressing {
    /// The host's end of a veth pair to the sandbox.
    pub fn host_interface(self) -> String {
        format!("sb{}", self.number)
    }

    /// The sandbox's IPv4 address.
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 11, self.number, 2)
    }

    /// The sandbox's IPv6 address.
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x11, self.number.into(), 0, 0, 0, 0, 2)
    }

    /// The host's address on the sandbox's link.
    pub fn gateway_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 11, self.number, 1)
    }

    /// The host's IPv6 address on the sandbox's link.
    pub fn gateway_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x11, self.number.into(), 0, 0, 0, 0, 1)
    }

    /// The sandbox's MAC address.
    pub fn mac(self) -> [u8; 6] {
        [0x02, 0xfc, 0, 0, 0, self.number]
    }

    /// The MAC address of the host's end.
    pub fn gateway_mac(self) -> [u8; 6] {
        [0x02, 0xfe, 0, 0, 0, self.number]
    }
}

/// Six bytes as `02:fc:00:00:00:05`.
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The link-local address that follows from a MAC.
pub fn link_local_address([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// One sandbox.
pub struct Sandbox {
    /// What the agent knows it by.
    pub id: String,
    /// Addresses and names.
    pub addressing: SandboxAddressing,
    /// The host's end of its link, where the policy is enforced.
    pub interface: String,
    /// Where its programs run.
    pub namespace: NetworkNamespace,
}

impl Sandbox {
    /// Adds a sandbox to the namespace in which `host` routes.
    pub fn behind_veth(host: &NetworkNamespace, number: u8) -> Result<Self> {
        let sandbox = Self::without_link(number, &SandboxAddressing { number }.host_interface())?;
        sandbox.create_veth(host)?;
        sandbox.route_through(host)?;
        Ok(sandbox)
    }

    /// A namespace with names and addresses, and no link yet.
    pub fn without_link(number: u8, interface: &str) -> Result<Self> {
        Ok(Self {
            id: format!("box{number}"),
            addressing: SandboxAddressing { number },
            interface: interface.to_owned(),
            namespace: NetworkNamespace::create(&format!("box{number}"))?,
        })
    }

    /// Makes the veth pair between host and sandbox. Done again, it replaces a link that is gone.
    ///
    /// The two ends must not have the same index: the kernel would take them for one device that
    /// has no link below it, and let up to a second go by before it calls the link up.
    pub fn create_veth(&self, host: &NetworkNamespace) -> Result<()> {
        self.create_veth_with_index(host, HOST_INDEX_BASE + u32::from(self.addressing.number))
    }

    /// The same with a certain index of the host's end.
    pub fn create_veth_with_index(&self, host: &NetworkNamespace, index: u32) -> Result<()> {
        let (identity, interface) = (self.addressing, &self.interface);
        host.ip_batch(&format!(
            "link add {interface} index {index} address {} type veth peer name {SANDBOX_INTERFACE} address {} netns {}
             link set {interface} up",
            format_mac(identity.gateway_mac()),
            format_mac(identity.mac()),
            self.namespace.name(),
        ))?;
        self.namespace.ip_batch(&format!(
            "addr add {}/24 dev {SANDBOX_INTERFACE}
             addr add {}/64 dev {SANDBOX_INTERFACE} nodad
             link set {SANDBOX_INTERFACE} up",
            identity.v4(),
            identity.v6(),
        ))
    }

    /// Makes the host the sandbox's way to everything.
    pub fn route_through(&self, host: &NetworkNamespace) -> Result<()> {
        self.assign_gateway_addresses(host)?;
        let identity = self.addressing;
        self.namespace.ip_batch(&format!(
            "route add 0.0.0.0/0 via {}
             route add ::/0 via {}",
            identity.gateway_v4(),
            identity.gateway_v6(),
        ))
    }

    /// Gives the host's end its addresses, which it loses when it goes to another namespace.
    pub fn assign_gateway_addresses(&self, host: &NetworkNamespace) -> Result<()> {
        let (identity, interface) = (self.addressing, &self.interface);
        host.ip_batch(&format!(
            "addr add {}/24 dev {interface}
             addr add {}/64 dev {interface} nodad",
            identity.gateway_v4(),
            identity.gateway_v6(),
        ))
    }

    /// The sandbox's addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.addressing.v4().into(), self.addressing.v6().into()]
    }

    /// The sandbox as `apply` wants it, with a network configuration: the fields of `config`
    /// (`network`, `allowInternetAccess`) beside interface, addresses and MAC.
    pub fn sandbox_spec(&self, config: &Value) -> Value {
        let mut spec = json!({
            "sandboxID": self.id,
            "interface": self.interface,
            "addresses": self.addresses(),
            "mac": format_mac(self.addressing.mac()),
        });
        if let (Some(spec), Some(config)) = (spec.as_object_mut(), config.as_object()) {
            spec.extend(config.clone());
        }
        spec
    }
}
