//! What the agent asks of the kernel side: the dataplane, or a stand-in when the agent itself is
//! tested.

use std::path::Path;

use anyhow::Result;
use ipnet::IpNet;
use policy_common::{counter::Counters, limit::Limits};

use super::presence::{self, Presence};
use crate::{
    dataplane::{self, Dataplane, Door, Identity, Interface, PolicyId, Published, Slot},
    policy::Compiled,
};

/// The kernel's enforcement; the methods mean what [`Dataplane`]'s of the same name do. They block.
#[expect(missing_docs, reason = "documented at Dataplane")]
pub trait Kernel: Send + Sync {
    /// Whether there is such an interface.
    fn presence(&self, interface: &Interface) -> Presence;
    /// The addresses that the host itself has in a network namespace, in order.
    fn host_addresses(&self, netns: Option<&Path>) -> Result<Vec<IpNet>>;
    /// Whether the interface is its network namespace's way to everywhere.
    fn carries_default_route(&self, interface: &Interface) -> Result<bool>;
    fn prepare(&self, slot: Slot, identity: &Identity) -> Result<()>;
    fn attach(&self, id: &str, slot: Slot, interface: &Interface) -> Result<()>;
    fn is_attached(&self, id: &str, slot: Slot, interface: &Interface) -> Result<bool>;
    fn publish(&self, slots: &[Slot], compiled: &Compiled) -> Result<PolicyId>;
    fn published(&self, slot: Slot) -> Result<Option<Published>>;
    fn restore_pins(&self) -> Result<()>;
    fn detach(&self, id: &str) -> Result<()>;
    fn is_port(&self, interface: &Interface) -> Result<bool>;
    fn open_door(&self, slot: Slot, interface: &Interface) -> Result<Door>;
    fn close_door(&self, slot: Slot) -> Result<()>;
    fn release(&self, slot: Slot) -> Result<()>;
    fn counters(&self, slot: Slot) -> Result<Counters>;
    fn limits(&self, slot: Slot) -> Result<Limits>;
    fn report_flows(&self, report: bool) -> Result<()>;
    fn attached_ids(&self) -> Result<Vec<String>>;
    fn attached_slot(&self, id: &str) -> Result<Option<Slot>>;
}

impl Kernel for Dataplane {
    fn presence(&self, interface: &Interface) -> Presence {
        presence::of(interface)
    }

    fn host_addresses(&self, netns: Option<&Path>) -> Result<Vec<IpNet>> {
        dataplane::host_addresses(netns)
    }

    fn carries_default_route(&self, interface: &Interface) -> Result<bool> {
        dataplane::carries_default_route(interface)
    }

    fn prepare(&self, slot: Slot, identity: &Identity) -> Result<()> {
        self.prepare(slot, identity)
    }

    fn attach(&self, id: &str, slot: Slot, interface: &Interface) -> Result<()> {
        self.attach(id, slot, interface)
    }

    fn is_attached(&self, id: &str, slot: Slot, interface: &Interface) -> Result<bool> {
        self.is_attached(id, slot, interface)
    }

    fn publish(&self, slots: &[Slot], compiled: &Compiled) -> Result<PolicyId> {
        self.publish(slots, compiled)
    }

    fn published(&self, slot: Slot) -> Result<Option<Published>> {
        self.published(slot)
    }

    fn restore_pins(&self) -> Result<()> {
        self.restore_pins()
    }

    fn detach(&self, id: &str) -> Result<()> {
        self.detach(id)
    }

    fn is_port(&self, interface: &Interface) -> Result<bool> {
        self.is_port(interface)
    }

    fn open_door(&self, slot: Slot, interface: &Interface) -> Result<Door> {
        self.open_door(slot, interface)
    }

    fn close_door(&self, slot: Slot) -> Result<()> {
        self.close_door(slot)
    }

    fn release(&self, slot: Slot) -> Result<()> {
        self.release(slot)
    }

    fn counters(&self, slot: Slot) -> Result<Counters> {
        self.counters(slot)
    }

    fn limits(&self, slot: Slot) -> Result<Limits> {
        self.limits(slot)
    }

    fn report_flows(&self, report: bool) -> Result<()> {
        self.report_flows(report)
    }

    fn attached_ids(&self) -> Result<Vec<String>> {
        self.attached_ids()
    }

    fn attached_slot(&self, id: &str) -> Result<Option<Slot>> {
        self.attached_slot(id)
    }
}
