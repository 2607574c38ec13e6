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

mod alert;
mod answers;
mod claim;
mod connection;
mod counts;
mod dial;
mod door;
mod http;
mod look_up;
mod means;
mod network;
mod pipe;
mod resolve;
mod route;
mod sni;
mod splice;
mod tls;
mod tunnel;
mod turn;
mod verdict;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use tokio::{net::TcpListener, runtime::Handle};

pub use self::{counts::Counts, look_up::Found};
use self::{
    door::Door,
    means::{Means, Patience},
    network::{Host, Network},
    pipe::Pool,
    tunnel::Authorities,
};
use crate::net::{socket, upstream};
use crate::{
    agent::{Egress, Law, Rules, Tally},
    dataplane::{self, Slot},
    events::Hub,
    limits::Descriptors,
    policy::SandboxId,
};

/// `[proxy]` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// DNS servers that resolve allowed names; none: those of the host's resolv.conf.
    pub resolvers: Vec<SocketAddr>,
    /// Connections that one sandbox may have through the proxy at a time.
    pub max_connections_per_sandbox: u32,
    /// Where the agent's own gateway listens: names may lead there, though it is the host itself.
    pub gateway: Vec<SocketAddr>,
    /// Whether a gateway shares the process's file descriptors.
    pub with_gateway: bool,
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
            gateway: settings.gateway,
            limit: usize::try_from(settings.max_connections_per_sandbox)?,
            most: most(settings.with_gateway)?,
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
const DESCRIPTORS: usize = 2;

/// How many connections all sandboxes may have together.
fn most(with_gateway: bool) -> Result<i64> {
    let descriptors = Descriptors::of_process(with_gateway)?.egress;
    Ok(i64::try_from(descriptors / DESCRIPTORS).unwrap_or(i64::MAX).max(1))
}

impl Egress for Proxy {
    fn open(
        &self,
        slot: Slot,
        sandbox: &SandboxId,
        tally: &Arc<Tally>,
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
        let door = Door::new(
            Arc::clone(&self.means),
            sandbox.clone(),
            Arc::clone(tally),
            Arc::clone(rules),
        );
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
