//! The egress proxy: decides about connections that the kernel hands over, by the name that they
//! ask for, and carries those that it lets out.
//!
//! ```text
//! door (accept) ─► connection ─► tls, http ─► claim (judge) ─► dial (resolve, floor) ─► splice
//!                                                              └► tunnel (SOCKS5) ────► splice
//! ```
//!
//! A door knows its connections from when they are accepted, so that new rules, or its end, reach
//! each of them at once.

mod claim;
mod connection;
mod counts;
mod dial;
mod door;
mod http;
mod means;
mod network;
mod pipe;
mod resolve;
mod route;
mod splice;
mod tls;
mod tunnel;
mod verdict;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use tokio::{net::TcpListener, runtime::Handle};

pub use self::counts::Counts;
use self::{
    door::Door,
    means::{Means, Patience},
    network::{Host, Network},
    pipe::Pool,
    tunnel::Authorities,
};
use crate::net::{socket, upstream};
use crate::{
    agent::{Egress, Law, Rules},
    dataplane::{self, Slot},
    events::Hub,
    policy::SandboxId,
};

/// `[proxy]` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// DNS servers that resolve allowed names; none: those of the host's resolv.conf.
    pub resolvers: Vec<SocketAddr>,
    /// Connections that one sandbox may have through the proxy at a time.
    pub max_connections_per_sandbox: u32,
}

/// The egress proxy.
pub struct Proxy {
    means: Arc<Means>,
    runtime: Handle,
    doors: Mutex<HashMap<Slot, Arc<Door>>>,
}

impl Proxy {
    /// A proxy without doors. Connections are served on the current runtime.
    ///
    /// # Errors
    /// Its resolver or its route socket cannot be set up.
    pub fn new(settings: Settings, law: Arc<Law>, events: Arc<Hub>) -> Result<Self> {
        let network = Box::new(Host::new(&settings.resolvers)?);
        Self::with(network, Patience::default(), settings, law, events)
    }

    fn with(
        network: Box<dyn Network>,
        patience: Patience,
        settings: Settings,
        law: Arc<Law>,
        hub: Arc<Hub>,
    ) -> Result<Self> {
        let means = Means {
            law,
            hub,
            counts: Counts::default(),
            network,
            pipes: Pool::default(),
            authorities: Authorities::default(),
            limit: usize::try_from(settings.max_connections_per_sandbox)?,
            most: most()?,
            patience,
        };
        let runtime = Handle::try_current().context("outside of a runtime")?;
        Ok(Self { means: Arc::new(means), runtime, doors: Mutex::default() })
    }

    /// What it counts: clones of it go on counting the same.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.means.counts
    }

    fn doors(&self) -> MutexGuard<'_, HashMap<Slot, Arc<Door>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self, slot: Slot) -> Option<Arc<Door>> {
        self.doors().get(&slot).cloned()
    }
}

/// File descriptors that a connection always has: its two sides.
const DESCRIPTORS: u64 = 2;
/// The part of the process's descriptors that connections leave for what else the agent does.
const RESERVE: u64 = 40;

/// How many connections all sandboxes may have together.
fn most() -> Result<i64> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
    Ok(i64::try_from((limit - limit / RESERVE) / DESCRIPTORS).unwrap_or(i64::MAX).max(1))
}

impl Egress for Proxy {
    fn open(
        &self,
        slot: Slot,
        sandbox: &SandboxId,
        rules: &Arc<Rules>,
        door: dataplane::Door,
    ) -> Result<()> {
        let _runtime = self.runtime.enter();
        let mut listeners = Vec::new();
        for listener in [door.v4, door.v6].into_iter().flatten() {
            socket::prepare_listener(&listener)?;
            listeners.push(TcpListener::from_std(listener)?);
        }
        let mut doors = self.doors();
        if doors.contains_key(&slot) {
            bail!("slot {} has a door already", slot.get());
        }
        let door = Door::new(Arc::clone(&self.means), sandbox.clone(), Arc::clone(rules));
        let door = Arc::new(door);
        for listener in listeners {
            door.serve(listener);
        }
        doors.insert(slot, door);
        Ok(())
    }

    fn is_open(&self, slot: Slot) -> bool {
        self.doors().contains_key(&slot)
    }

    fn follow(&self, slot: Slot, rules: &Arc<Rules>) {
        if let Some(door) = self.door(slot) {
            door.follow(rules);
        }
    }

    fn close(&self, slot: Slot) {
        let door = self.doors().remove(&slot);
        if let Some(door) = door {
            door.close();
        }
    }

    fn active(&self, slot: Slot) -> usize {
        self.door(slot).map_or(0, |door| door.active())
    }
}
