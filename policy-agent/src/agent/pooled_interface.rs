//! One interface that the agent may give to a sandbox that it creates.

use std::net::IpAddr;

use super::interface_state::{NamespaceId, namespace_id};
use crate::{
    dataplane::HostInterface,
    policy::{MacAddress, NetworkConfig, SandboxId, SandboxSpec},
};

/// One interface of `[[interfaces]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PooledInterface {
    /// Where it is.
    pub interface: HostInterface,
    /// The addresses behind it.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Option<MacAddress>,
    /// Whether it may be an interface that the host needs for itself.
    pub force: bool,
}

impl PooledInterface {
    /// A sandbox on it.
    #[must_use]
    pub fn sandbox_spec(
        &self,
        id: &SandboxId,
        network: NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> SandboxSpec {
        SandboxSpec {
            sandbox_id: id.clone(),
            interface: self.interface.name.clone(),
            netns: self.interface.netns.clone(),
            addresses: self.addresses.clone(),
            mac: self.mac,
            allow_internet_access,
            network,
        }
    }

    /// Its namespace, if that exists.
    pub(crate) fn namespace_id(&self) -> Option<NamespaceId> {
        namespace_id(self.interface.netns.as_deref()).ok()
    }
}
