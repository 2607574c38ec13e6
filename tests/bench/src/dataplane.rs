//! A dataplane with default settings, and the gate of one sandbox.

use std::{net::IpAddr, path::Path};

use anyhow::Result;
use aya::programs::SchedClassifier;
use policy_agent::dataplane::{
    AttachMethod, Dataplane, DataplaneSettings, DenyAction, EndpointAddresses, GuardMethod,
    GuardSettings, HookMode, InboundSource, Slot, TableKind,
};
use policy_testbed::{network::BpffsDirectory, packets::MacAddr};

/// Loads the programs with pins in this directory. Inbound connections are allowed from any source.
pub(crate) fn open_dataplane(bpffs: &BpffsDirectory, deny_action: DenyAction) -> Result<Dataplane> {
    Dataplane::open(DataplaneSettings {
        bpffs: bpffs.path().to_owned(),
        mode: HookMode::Tc,
        attach_method: AttachMethod::Auto,
        expedite_rcu: true,
        tables: TableKind::Flat,
        deny_action,
        inbound_source: InboundSource::Any,
        guard: GuardSettings { method: GuardMethod::Off, ..GuardSettings::default() },
    })
}

/// Assigns a new sandbox to a slot.
pub(crate) fn prepare_slot(
    dataplane: &Dataplane,
    slot: Slot,
    mac: Option<MacAddr>,
    addresses: &[IpAddr],
) -> Result<()> {
    dataplane.prepare_slot(slot, &EndpointAddresses { mac, addresses: addresses.to_vec() })
}

/// Opens the gate for the traffic from a slot's sandbox through its pin.
pub(crate) fn open_gate(dataplane: &Dataplane, slot: Slot, pins: &Path) -> Result<SchedClassifier> {
    let pin = pins.join(format!("from_{}", slot.get()));
    dataplane.load_slot_gates(slot)?.load_from_sandbox()?.pin(&pin)?;
    Ok(SchedClassifier::from_pin(pin)?)
}
