//! A slot: a network namespace of its own for one sandbox's interface, as hosts of microVMs have
//! them, in which every sandbox has the same interface name and the same address.
//!
//! Each slot has a little internet of its own, so that equal addresses need no translation.

use anyhow::Result;
use serde_json::{Value, json};

use super::{NetworkNamespace, Sandbox, host_router, internet_addresses};
use crate::test_servers::TestServers;

/// The interface's name in every slot.
const TAP_INTERFACE: &str = "tap0";
/// The number from which every slot's sandbox has its address.
const SANDBOX_NUMBER: u8 = 200;

/// A namespace with a sandbox behind it.
pub struct NamespacedSandbox {
    /// The sandbox; its ID is the slot's own.
    pub sandbox: Sandbox,
    _servers: TestServers,
    _internet: NetworkNamespace,
    /// Where the sandbox's interface stands.
    pub namespace: NetworkNamespace,
}

impl NamespacedSandbox {
    /// Builds a slot whose sandbox has this ID.
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

    /// The sandbox as `apply` wants it.
    pub fn sandbox_spec(&self, config: &Value) -> Value {
        let mut spec = self.sandbox.sandbox_spec(config);
        spec["netns"] = json!(self.namespace.path());
        spec
    }
}
