//! A separate network namespace for one sandbox's interface, as hosts of microVMs use them. Every
//! sandbox there has the same interface name and the same address.
//!
//! Each namespace has its own small internet, so that equal addresses need no translation.

use anyhow::Result;
use serde_json::{Value, json};

use super::{NetworkNamespace, Sandbox, host_router, internet_addresses};
use crate::test_servers::TestServers;

/// The interface name in every such namespace.
const TAP_INTERFACE: &str = "tap0";
/// The sandbox number from which all these sandboxes get their address.
const SANDBOX_NUMBER: u8 = 200;

/// A namespace with a sandbox behind it.
pub struct NamespacedSandbox {
    /// The sandbox, with its own ID.
    pub sandbox: Sandbox,
    _servers: TestServers,
    _internet: NetworkNamespace,
    /// The namespace of the sandbox's interface.
    pub namespace: NetworkNamespace,
}

impl NamespacedSandbox {
    /// Builds a namespace with a sandbox of this ID.
    pub fn build(id: &str) -> Result<Self> {
        let namespace = NetworkNamespace::create(&format!("slot-{id}"))?;
        let internet = NetworkNamespace::create(&format!("internet-{id}"))?;
        host_router::enable_forwarding(&namespace)?;
        host_router::link_to_internet(&namespace, &internet)?;
        internet_addresses::assign_addresses(&internet)?;
        internet_addresses::add_return_routes(&internet)?;
        let mut sandbox = Sandbox::without_link(SANDBOX_NUMBER, TAP_INTERFACE)?;
        id.clone_into(&mut sandbox.id);
        sandbox.create_veth(&namespace)?;
        sandbox.route_through(&namespace)?;
        let servers = TestServers::start(&internet, &internet_addresses::all_addresses())?;
        Ok(Self { sandbox, _servers: servers, _internet: internet, namespace })
    }

    /// The sandbox in the format of `apply`.
    pub fn sandbox_spec(&self, config: &Value) -> Value {
        let mut spec = self.sandbox.sandbox_spec(config);
        spec["netns"] = json!(self.namespace.path());
        spec
    }
}
