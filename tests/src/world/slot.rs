//! A slot: a network namespace of its own for one sandbox's interface, as hosts of microVMs have
//! them, in which every sandbox has the same interface name and the same address.
//!
//! Each slot has a little internet of its own, so that equal addresses need no translation.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Namespace, Sandbox, host, internet};
use crate::server::Servers;

/// The interface's name in every slot.
const INTERFACE: &str = "tap0";
/// The number from which every slot's sandbox has its address.
const NUMBER: u8 = 200;

/// A namespace with a sandbox behind it.
pub struct Slot {
    /// The sandbox; its ID is the slot's own.
    pub sandbox: Sandbox,
    _servers: Servers,
    _internet: Namespace,
    /// Where the sandbox's interface stands.
    pub namespace: Namespace,
}

impl Slot {
    /// Builds a slot whose sandbox has this ID.
    pub fn build(id: &str) -> Result<Self> {
        let namespace = Namespace::create(&format!("slot-{id}"))?;
        let internet = Namespace::create(&format!("internet-{id}"))?;
        host::become_router(&namespace)?;
        host::link(&namespace, &internet)?;
        internet::own_addresses(&internet)?;
        internet::route_back(&internet)?;
        let mut sandbox = Sandbox::unlinked(NUMBER, INTERFACE)?;
        id.clone_into(&mut sandbox.id);
        sandbox.plug_into(&namespace)?;
        sandbox.route_to(&namespace)?;
        let servers = Servers::start(&internet, &internet::addresses())?;
        Ok(Self { sandbox, _servers: servers, _internet: internet, namespace })
    }

    /// The sandbox as `apply` wants it.
    pub fn spec(&self, config: &Value) -> Value {
        let mut spec = self.sandbox.spec(config);
        spec["netns"] = json!(self.namespace.path());
        spec
    }
}
