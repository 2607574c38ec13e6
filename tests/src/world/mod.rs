//! A small network: sandboxes behind a host, and behind that an "internet" that owns every address
//! the tests speak of.
//!
//! ```text
//!  sandbox 1 ── sb1 ┐
//!  sandbox 2 ── sb2 ┤ host ── uplink ── internet: 1.1.1.1, 8.8.8.8, 203.0.113.10, 2001:db8:…,
//!  guest 3 (tap)tap3┘                             169.254.169.254, private addresses, …
//! ```
//!
//! All of it stands in network namespaces with names of their own and goes away on drop.

mod bpffs;
pub mod bridge;
pub mod command;
pub mod host;
pub mod internet;
mod name;
mod namespace;
mod privilege;
pub mod sandbox;
pub mod slot;
mod sweep;
pub mod tap;
pub mod tapped;

use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

pub use bpffs::{Bpffs, unpin};
pub use name::{names_begin_with, unique};
pub use namespace::{Entered, Namespace};
pub use sandbox::Sandbox;

/// Host and internet, to which sandboxes are added.
pub struct World {
    /// Where the agent runs and the sandboxes' interfaces stand.
    pub host: Namespace,
    /// Where everything that a sandbox may want to reach stands.
    pub internet: Namespace,
    taken: AtomicU8,
}

impl World {
    /// Builds host and internet.
    pub fn build() -> Result<Self> {
        sweep::once();
        let world = Self {
            host: Namespace::create("host")?,
            internet: Namespace::create("internet")?,
            taken: AtomicU8::new(0),
        };
        host::become_router(&world.host)?;
        host::link(&world.host, &world.internet)?;
        internet::own_addresses(&world.internet)?;
        internet::route_back(&world.internet)?;
        Ok(world)
    }

    /// Adds a sandbox behind a veth pair, whose other end stands in the host.
    pub fn sandbox(&self) -> Result<Sandbox> {
        Sandbox::behind_veth(&self.host, self.next_number())
    }

    /// A number that no other sandbox of this world has; its addresses and names follow from it.
    pub fn next_number(&self) -> u8 {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        before.checked_add(1).unwrap_or_else(|| panic!("a world holds 255 sandboxes"))
    }
}
