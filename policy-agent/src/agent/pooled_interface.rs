//! An interface that the agent may assign to a sandbox that it creates.

use std::net::IpAddr;

use super::interface_state::{NamespaceId, namespace_id};
use crate::{
    dataplane::HostInterface,
    policy::{MacAddress, NetworkConfig, PolicyMode, SandboxId, SandboxSpec},
};

/// An interface of `[[interfaces]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PooledInterface {
    /// Its name and network namespace.
    pub interface: HostInterface,
    /// The addresses of the sandbox behind it.
    pub addresses: Vec<IpAddr>,
    /// The MAC address of the sandbox behind it. `None` allows any.
    pub mac: Option<MacAddress>,
    /// Whether to use it even if the host itself needs it.
    pub force: bool,
}

impl PooledInterface {
    /// Returns the specification of a sandbox on this interface.
    #[must_use]
    pub fn sandbox_spec(
        &self,
        id: &SandboxId,
        network: NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> SandboxSpec {
        SandboxSpec {
            sandbox_id: id.clone(),
            container: None,
            interface: self.interface.name.clone(),
            netns: self.interface.netns.clone(),
            addresses: self.addresses.clone(),
            mac: self.mac,
            allow_internet_access,
            network,
            temporary: Vec::new(),
            mode: PolicyMode::Enforce,
            observe_until: None,
        }
    }

    /// Returns its namespace, if that exists.
    pub(crate) fn namespace_id(&self) -> Option<NamespaceId> {
        namespace_id(self.interface.netns.as_deref()).ok()
    }
}
