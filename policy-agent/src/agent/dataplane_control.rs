//! The agent's interface to the dataplane. Unit tests replace the dataplane with a fake.

use std::path::Path;

use anyhow::Result;
use ipnet::IpNet;
use policy_common::{counters::ReasonCounters, rate_limit::RateLimiterState};

use super::interface_state::{self, InterfaceState};
use crate::{
    dataplane::{
        self, Dataplane, EndpointAddresses, ExpeditedSection, HostInterface, PolicyId, ProbePacket,
        PublishedPolicy, RedirectListeners, Slot,
    },
    policy::CompiledPolicy,
};

/// Enforcement by the kernel. Each method behaves like that of [`Dataplane`] with the same name.
/// All of them block.
#[expect(missing_docs, reason = "documented at Dataplane")]
pub trait DataplaneControl: Send + Sync {
    /// Returns whether the interface exists.
    fn interface_state(&self, interface: &HostInterface) -> InterfaceState;
    /// Returns the host's own addresses in a network namespace, in order.
    fn host_addresses(&self, netns: Option<&Path>) -> Result<Vec<IpNet>>;
    /// Returns whether a default route of its network namespace leads through the interface.
    fn carries_default_route(&self, interface: &HostInterface) -> Result<bool>;
    fn prepare_slot(&self, slot: Slot, identity: &EndpointAddresses) -> Result<()>;
    fn expedite_attaching(&self) -> Option<ExpeditedSection<'_>>;
    fn attach(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<()>;
    fn is_attached(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<bool>;
    fn guard_interface(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<()>;
    fn release_guard(&self, pin_name: &str) -> Result<()>;
    fn publish(&self, slots: &[Slot], compiled: &CompiledPolicy) -> Result<PolicyId>;
    fn published_policy(&self, slot: Slot) -> Result<Option<PublishedPolicy>>;
    fn probe(&self, slot: Slot, packet: ProbePacket) -> Result<bool>;
    fn is_guarded(&self, pin_name: &str) -> Result<Option<bool>>;
    fn restore_pins(&self) -> Result<()>;
    fn detach(&self, pin_name: &str) -> Result<()>;
    fn is_bridge_port(&self, interface: &HostInterface) -> Result<bool>;
    fn open_listeners(&self, slot: Slot, interface: &HostInterface) -> Result<RedirectListeners>;
    fn close_listeners(&self, slot: Slot) -> Result<()>;
    fn release_slot(&self, slot: Slot) -> Result<()>;
    fn counters(&self, slot: Slot) -> Result<ReasonCounters>;
    fn rate_limits(&self, slot: Slot) -> Result<RateLimiterState>;
    fn set_flow_reporting(&self, enabled: bool) -> Result<()>;
    fn set_observed(&self, slot: Slot, observed: bool) -> Result<()>;
    fn attached_pin_names(&self) -> Result<Vec<String>>;
    fn attached_slot(&self, pin_name: &str) -> Result<Option<Slot>>;
}

impl DataplaneControl for Dataplane {
    fn interface_state(&self, interface: &HostInterface) -> InterfaceState {
        interface_state::probe_interface(interface)
    }

    fn host_addresses(&self, netns: Option<&Path>) -> Result<Vec<IpNet>> {
        dataplane::host_addresses(netns)
    }

    fn carries_default_route(&self, interface: &HostInterface) -> Result<bool> {
        dataplane::carries_default_route(interface)
    }

    fn prepare_slot(&self, slot: Slot, identity: &EndpointAddresses) -> Result<()> {
        self.prepare_slot(slot, identity)
    }

    fn expedite_attaching(&self) -> Option<ExpeditedSection<'_>> {
        Some(self.expedite_attaching())
    }

    fn attach(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<()> {
        self.attach(pin_name, slot, interface)
    }

    fn is_attached(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<bool> {
        self.is_attached(pin_name, slot, interface)
    }

    fn guard_interface(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<()> {
        self.guard_interface(pin_name, slot, interface)
    }

    fn release_guard(&self, pin_name: &str) -> Result<()> {
        self.release_guard(pin_name)
    }

    fn publish(&self, slots: &[Slot], compiled: &CompiledPolicy) -> Result<PolicyId> {
        self.publish(slots, compiled)
    }

    fn published_policy(&self, slot: Slot) -> Result<Option<PublishedPolicy>> {
        self.published_policy(slot)
    }

    fn probe(&self, slot: Slot, packet: ProbePacket) -> Result<bool> {
        self.probe(slot, packet)
    }

    fn is_guarded(&self, pin_name: &str) -> Result<Option<bool>> {
        self.is_guarded(pin_name)
    }

    fn restore_pins(&self) -> Result<()> {
        self.restore_pins()
    }

    fn detach(&self, pin_name: &str) -> Result<()> {
        self.detach(pin_name)
    }

    fn is_bridge_port(&self, interface: &HostInterface) -> Result<bool> {
        self.is_bridge_port(interface)
    }

    fn open_listeners(&self, slot: Slot, interface: &HostInterface) -> Result<RedirectListeners> {
        self.open_listeners(slot, interface)
    }

    fn close_listeners(&self, slot: Slot) -> Result<()> {
        self.close_listeners(slot)
    }

    fn release_slot(&self, slot: Slot) -> Result<()> {
        self.release_slot(slot)
    }

    fn counters(&self, slot: Slot) -> Result<ReasonCounters> {
        self.counters(slot)
    }

    fn rate_limits(&self, slot: Slot) -> Result<RateLimiterState> {
        self.rate_limits(slot)
    }

    fn set_flow_reporting(&self, enabled: bool) -> Result<()> {
        self.set_flow_reporting(enabled)
    }

    fn set_observed(&self, slot: Slot, observed: bool) -> Result<()> {
        self.set_observed(slot, observed)
    }

    fn attached_pin_names(&self) -> Result<Vec<String>> {
        self.attached_pin_names()
    }

    fn attached_slot(&self, pin_name: &str) -> Result<Option<Slot>> {
        self.attached_slot(pin_name)
    }
}
