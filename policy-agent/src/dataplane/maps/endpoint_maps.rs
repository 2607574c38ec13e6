//! The maps with sandbox identities, counters and rate limiters.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{Array, MapData};
use policy_common::{
    bpf_names,
    counters::ReasonCounters,
    endpoint::{
        ENDPOINT_ACTIVE, ENDPOINT_MAC_KNOWN, ENDPOINT_OBSERVED, ENDPOINT_REPORT_FLOWS,
        MAX_ADDRESSES_PER_FAMILY, SandboxEndpoint,
    },
    rate_limit::RateLimiterState,
};

use crate::dataplane::{
    EndpointAddresses, Slot,
    maps::{
        counter_groups::CounterGroups, mapped_endpoints::MappedEndpoints,
        pin_directory::PinDirectory, pinned_maps::open_pinned_map,
    },
};

/// The maps with one entry per slot.
pub(crate) struct EndpointMaps {
    mapped: Arc<MappedEndpoints>,
    endpoints: Mutex<Array<MapData, SandboxEndpoint>>,
    rate_limiters: Mutex<Array<MapData, RateLimiterState>>,
    counters: CounterGroups,
}

impl EndpointMaps {
    /// Opens the pinned maps.
    pub(crate) fn open(pins: &PinDirectory, mapped: Arc<MappedEndpoints>) -> Result<Self> {
        Ok(Self {
            mapped,
            endpoints: Mutex::new(
                open_pinned_map(&pins.map_path(bpf_names::SANDBOXES))?.try_into()?,
            ),
            rate_limiters: Mutex::new(
                open_pinned_map(&pins.map_path(bpf_names::LIMITS))?.try_into()?,
            ),
            counters: CounterGroups::open(pins)?,
        })
    }

    /// Writes an identity to a slot without a policy, and resets its counters.
    pub(crate) fn write_endpoint(
        &self,
        slot: Slot,
        identity: &EndpointAddresses,
        flags: u32,
    ) -> Result<()> {
        self.counters.reset(slot)?;
        lock_map(&self.rate_limiters)?.set(slot.get(), RateLimiterState::default(), 0)?;
        let sandbox = endpoint_entry(identity, flags)?;
        lock_map(&self.endpoints)?.set(slot.get(), sandbox, 0)?;
        Ok(())
    }

    /// Removes the identity from a slot. All packets of the slot are then denied.
    pub(crate) fn clear_endpoint(&self, slot: Slot) -> Result<()> {
        Ok(lock_map(&self.endpoints)?.set(slot.get(), SandboxEndpoint::default(), 0)?)
    }

    /// Sets the flags of every active slot. `ENDPOINT_MAC_KNOWN` is part of the identity and is
    /// preserved, and so is `ENDPOINT_OBSERVED` with the flow reports that it brings.
    pub(crate) fn update_flags(&self, flags: u32) -> Result<()> {
        let _no_other_change = lock_map(&self.endpoints)?;
        for slot in Slot::all() {
            let stored = self.mapped.flags(slot);
            let before = stored.load(Ordering::Relaxed);
            if before & ENDPOINT_ACTIVE != 0 {
                let kept = before & (ENDPOINT_MAC_KNOWN | ENDPOINT_OBSERVED);
                let reports = with_flow_reporting(kept, before & ENDPOINT_OBSERVED != 0);
                stored.store(flags | reports, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Sets whether the sandbox in a slot is observed. `report` is whether all new flows are
    /// reported anyway.
    pub(crate) fn set_observed(&self, slot: Slot, observed: bool, report: bool) -> Result<()> {
        let _no_other_change = lock_map(&self.endpoints)?;
        let stored = self.mapped.flags(slot);
        let before = stored.load(Ordering::Relaxed);
        if before & ENDPOINT_ACTIVE != 0 {
            let kept = before & !(ENDPOINT_OBSERVED | ENDPOINT_REPORT_FLOWS);
            let flag = if observed { ENDPOINT_OBSERVED } else { 0 };
            stored.store(with_flow_reporting(kept | flag, observed || report), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The counters, summed over all CPUs.
    pub(crate) fn read_counters(&self, slot: Slot) -> Result<ReasonCounters> {
        self.counters.read(slot)
    }

    /// The token buckets, and the numbers of events that were not written.
    pub(crate) fn read_rate_limiter(&self, slot: Slot) -> Result<RateLimiterState> {
        Ok(lock_map(&self.rate_limiters)?.get(&slot.get(), 0)?)
    }
}

/// Adds the flag for flow reporting if `report` is set.
pub(crate) fn with_flow_reporting(flags: u32, report: bool) -> u32 {
    if report { flags | ENDPOINT_REPORT_FLOWS } else { flags }
}

fn endpoint_entry(identity: &EndpointAddresses, flags: u32) -> Result<SandboxEndpoint> {
    let mut sandbox = SandboxEndpoint {
        flags,
        flow_key: [u64::from_ne_bytes(random_bytes()?), u64::from_ne_bytes(random_bytes()?)],
        has_no_inbound_tcp: 1,
        has_no_inbound_datagrams: 1,
        ..SandboxEndpoint::default()
    };
    if let Some(mac) = identity.mac {
        sandbox.flags |= ENDPOINT_MAC_KNOWN;
        sandbox.mac = mac;
    }
    let (mut v4, mut v6) = (0, 0);
    for address in &identity.addresses {
        match address {
            IpAddr::V4(address) => push_address(
                &mut sandbox.ipv4_addresses,
                &mut v4,
                u32::from_ne_bytes(address.octets()),
            )?,
            IpAddr::V6(address) => {
                push_address(&mut sandbox.ipv6_addresses, &mut v6, ipv6_words(*address))?
            }
        }
    }
    Ok(sandbox)
}

/// The words of an address as they are on the wire.
fn ipv6_words(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    let word = |at: usize| [octets[at], octets[at + 1], octets[at + 2], octets[at + 3]];
    [0, 4, 8, 12].map(|at| u32::from_ne_bytes(word(at)))
}

fn push_address<T>(
    places: &mut [T; MAX_ADDRESSES_PER_FAMILY],
    used: &mut usize,
    octets: T,
) -> Result<()> {
    let Some(place) = places.get_mut(*used) else {
        bail!("a sandbox has at most {MAX_ADDRESSES_PER_FAMILY} addresses of each family");
    };
    *place = octets;
    *used += 1;
    Ok(())
}

fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut random = [0; N];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)
        .context("cannot read /dev/urandom")?;
    Ok(random)
}

fn lock_map<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| anyhow!("a map's handle is poisoned by a panic"))
}
