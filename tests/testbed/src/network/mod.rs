//! A small network: sandboxes behind a host, and an "internet" that owns every address that the
//! tests use.
//!
//! ```text
//!  sandbox 1 ── sb1 ┐
//!  sandbox 2 ── sb2 ┤ host ── uplink ── internet: 1.1.1.1, 8.8.8.8, 203.0.113.10, 2001:db8:…,
//!  guest 3 (tap)tap3┘                             169.254.169.254, private addresses, …
//! ```
//!
//! All of it is in network namespaces with unique names and is removed on drop.

mod bpffs;
pub mod bridged_sandbox;
pub mod command;
pub mod host_router;
pub mod internet_addresses;
pub mod namespaced_sandbox;
mod network_namespace;
mod root_check;
pub mod sandbox;
mod stale_cleanup;
pub mod tap_device;
pub mod tap_relay;
pub mod tc_bypass;
pub(crate) mod tcp_listener;
mod unique_names;

use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

pub use bpffs::{BpffsDirectory, remove_pins};
pub use network_namespace::{NamespaceGuard, NetworkNamespace};
pub use sandbox::Sandbox;
pub use unique_names::{set_name_prefix, unique_directory, unique_name};

/// The host and the internet. Sandboxes are added to them.
pub struct TestNetwork {
    /// The namespace of the agent and of the sandboxes' host interfaces.
    pub host: NetworkNamespace,
    /// The namespace of all destinations.
    pub internet: NetworkNamespace,
    last_number: AtomicU8,
}

impl TestNetwork {
    /// Builds host and internet.
    pub fn build() -> Result<Self> {
        stale_cleanup::clean_up_once();
        let world = Self {
            host: NetworkNamespace::create("host")?,
            internet: NetworkNamespace::create("internet")?,
            last_number: AtomicU8::new(0),
        };
        host_router::enable_forwarding(&world.host)?;
        host_router::link_to_internet(&world.host, &world.internet)?;
        internet_addresses::assign_addresses(&world.internet)?;
        internet_addresses::add_return_routes(&world.internet)?;
        Ok(world)
    }

    /// Adds a sandbox behind a veth pair, with one end in the host.
    pub fn add_sandbox(&self) -> Result<Sandbox> {
        Sandbox::behind_veth(&self.host, self.next_number())
    }

    /// Returns a number that no other sandbox of this network has. Addresses and names derive from
    /// it.
    pub fn next_number(&self) -> u8 {
        let before = self.last_number.fetch_add(1, Ordering::Relaxed);
        before.checked_add(1).unwrap_or_else(|| panic!("a world holds 255 sandboxes"))
    }
}
