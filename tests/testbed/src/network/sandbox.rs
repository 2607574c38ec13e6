//! A sandbox: a namespace with one interface, linked to the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use serde_json::{Value, json};

use super::NetworkNamespace;

/// The IPv4 network of all sandboxes.
pub const SANDBOX_NETWORK_V4: &str = "10.11.0.0/16";
/// The IPv6 network of all sandboxes.
pub const SANDBOX_NETWORK_V6: &str = "fd00:11::/32";
/// The name of the interface inside a sandbox.
pub const SANDBOX_INTERFACE: &str = "eth0";

/// The indexes of the host's interfaces are above this.
const HOST_INDEX_BASE: u32 = 1000;

/// Addresses and names of a sandbox, all derived from its number.
#[derive(Clone, Copy, Debug)]
pub struct SandboxAddressing {
    /// The number, starting at 1.
    pub number: u8,
}

impl SandboxAddressing {
    /// The name of the host's end of the veth pair.
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

    /// The host's IPv4 address on the sandbox's link.
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

/// Formats six bytes as `02:fc:00:00:00:05`.
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The link-local address derived from a MAC.
pub fn link_local_address([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A sandbox.
pub struct Sandbox {
    /// The ID that the agent uses.
    pub id: String,
    /// Addresses and names.
    pub addressing: SandboxAddressing,
    /// The host's end of its link, where the policy is enforced.
    pub interface: String,
    /// The namespace of its programs.
    pub namespace: NetworkNamespace,
}

impl Sandbox {
    /// Adds a sandbox to the namespace of the routing host.
    pub fn behind_veth(host: &NetworkNamespace, number: u8) -> Result<Self> {
        let sandbox = Self::without_link(number, &SandboxAddressing { number }.host_interface())?;
        sandbox.create_veth(host)?;
        sandbox.route_through(host)?;
        Ok(sandbox)
    }

    /// Creates a namespace with names and addresses, without a link.
    pub fn without_link(number: u8, interface: &str) -> Result<Self> {
        Ok(Self {
            id: format!("box{number}"),
            addressing: SandboxAddressing { number },
            interface: interface.to_owned(),
            namespace: NetworkNamespace::create(&format!("box{number}"))?,
        })
    }

    /// Creates the veth pair between host and sandbox. A second call replaces a deleted link.
    ///
    /// The two ends must have different indexes: otherwise the kernel takes the link for a device
    /// without a lower one, and can delay the link-up event by up to a second.
    pub fn create_veth(&self, host: &NetworkNamespace) -> Result<()> {
        self.create_veth_with_index(host, HOST_INDEX_BASE + u32::from(self.addressing.number))
    }

    /// Creates the veth pair with a given index for the host's end.
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

    /// Makes the host the sandbox's default gateway.
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

    /// Assigns the addresses of the host's end, which it loses when it moves to another namespace.
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

    /// The sandbox in the format of `apply`: the fields of `config` (`network`,
    /// `allowInternetAccess`), plus interface, addresses and MAC.
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
