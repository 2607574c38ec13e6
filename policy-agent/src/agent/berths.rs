//! Berths: the interfaces of `[[interfaces]]`. (A slot is a number in the kernel's tables.)
//!
//! The gates of a berth stay on it, under a name of its own, and are pointed to the slot of the
//! sandbox that has it, or to an empty slot, which denies everything, while nobody does. So handing
//! out and taking back are one step for every packet, and what still runs behind a vacant berth
//! reaches nothing.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};

use super::{
    claims::Claims,
    presence::{Namespace, Presence, namespace},
    reconciler::Reconciler,
    sandbox::{Place, Sandbox, interface},
};
use crate::{
    dataplane::{Interface, Slot},
    policy::{MacAddress, NetworkConfig, SandboxId, SandboxSpec},
};

/// One interface of `[[interfaces]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Berth {
    /// Where it is.
    pub interface: Interface,
    /// Addresses of whoever is behind it.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Option<MacAddress>,
    /// Whether it may be an interface that the host needs for itself.
    pub force: bool,
}

impl Berth {
    /// A sandbox on it.
    #[must_use]
    pub fn spec(
        &self,
        id: &SandboxId,
        network: NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> SandboxSpec {
        SandboxSpec {
            sandbox_id: id.clone(),
            interface: self.interface.name.clone(),
            netns: self.interface.netns.clone(),
            addresses: self.addresses.clone(),
            mac: self.mac,
            allow_internet_access,
            network,
        }
    }

    /// Its namespace, if that is there.
    fn namespace(&self) -> Option<Namespace> {
        namespace(self.interface.netns.as_deref()).ok()
    }
}

/// All berths.
#[derive(Debug, Default)]
pub struct Berths {
    all: Arc<[Berth]>,
    /// Where the gates of vacant berths point.
    empty: Option<Slot>,
    /// What is known of the vacant ones, by the name of their gates.
    vacant: HashMap<String, Vacancy>,
}

/// How the last attempt to shut a vacant berth went.
#[derive(Debug, PartialEq, Eq)]
enum Vacancy {
    Shut(Place),
    /// It is not there; it is shut when it appears.
    Missing,
    /// It is open or not known to be shut, and why.
    Failed(String),
}

impl Berths {
    /// Berths of which nothing is known yet.
    #[must_use]
    pub fn new(all: Arc<[Berth]>) -> Self {
        Self { all, ..Self::default() }
    }

    /// Under which name the gates of a sandbox are pinned: its own, or that of its berth.
    pub(super) fn gates(&self, spec: &SandboxSpec) -> Arc<str> {
        let gates = self.at(&interface(spec)).and_then(|berth| berth.interface.gates());
        gates.map_or_else(|| spec.sandbox_id.as_str().into(), Arc::from)
    }

    /// The berth at an interface, however the path of its namespace is written.
    fn at(&self, wanted: &Interface) -> Option<&Berth> {
        if let Some(berth) = self.all.iter().find(|berth| berth.interface == *wanted) {
            return Some(berth);
        }
        let mut so_called = self.all.iter().filter(|berth| berth.interface.name == wanted.name);
        let namespace = namespace(wanted.netns.as_deref()).ok()?;
        so_called.find(|berth| berth.namespace() == Some(namespace))
    }

    /// Whether gates of this name are a berth's.
    pub(super) fn are_of(&self, gates: &str) -> bool {
        let interface = Interface::of_gates(gates);
        interface.is_some_and(|interface| self.all.iter().any(|one| one.interface == interface))
    }
}

/// Who has which interface.
struct Taken {
    gates: HashSet<Arc<str>>,
    claims: Claims,
}

impl Taken {
    fn contains(&self, reconciler: &Reconciler, berth: &Berth) -> bool {
        if berth.interface.gates().is_some_and(|gates| self.gates.contains(gates.as_str())) {
            return true;
        }
        let Some(namespace) = berth.namespace() else { return false };
        let owner = self.claims.owner_of_interface(namespace, &berth.interface.name);
        owner.is_some_and(|owner| reconciler.is_in(&owner.id, namespace))
    }
}

impl Reconciler {
    /// A sandbox on a berth that is there and that nobody has.
    pub(super) fn free_berth(&self, spec: impl Fn(&Berth) -> SandboxSpec) -> Option<SandboxSpec> {
        let taken = self.taken();
        let free = self.berths.all.iter().filter(|berth| !taken.contains(self, berth));
        let fits = |spec: &SandboxSpec, force| {
            self.check_place(spec, &mut self.claims(&[]), force).is_ok()
        };
        free.map(|berth| (spec(berth), berth.force))
            .find_map(|(spec, force)| fits(&spec, force).then_some(spec))
    }

    fn taken(&self) -> Taken {
        let gates = self.table.all().iter().map(|sandbox| sandbox.gates.clone()).collect();
        Taken { gates, claims: self.claims(&[]) }
    }

    /// Finds the slot where the gates of vacant berths point, and makes sure that it is empty. The
    /// sandboxes have their slots by now.
    pub(super) fn adopt_berths(&mut self) -> Result<()> {
        let mut pointed_to = None;
        for berth in &*self.berths.all {
            let Some(gates) = berth.interface.gates() else { continue };
            let slot = self.kernel.attached_slot(&gates)?;
            pointed_to = pointed_to.or(slot.filter(|slot| !self.slots.is_taken(*slot)));
        }
        if self.berths.all.is_empty() {
            return Ok(());
        }
        let slot = match pointed_to {
            Some(slot) if self.slots.claim(slot) => slot,
            _ => self.slots.take().context("every slot is taken")?,
        };
        // An agent that died while it took a berth back left its sandbox's policy there.
        self.kernel.release(slot).context("cannot empty a slot")?;
        self.berths.empty = Some(slot);
        self.shut_vacant(&Arc::clone(&self.berths.all));
        Ok(())
    }

    /// Shuts those of these berths that nobody has. Does nothing where they are shut.
    pub fn shut_vacant(&mut self, berths: &[Berth]) {
        let taken = self.taken();
        for berth in berths {
            let Some(gates) = berth.interface.gates() else { continue };
            if taken.contains(self, berth) {
                self.berths.vacant.remove(&gates);
            } else {
                self.look_at_vacant(gates, berth);
            }
        }
    }

    fn look_at_vacant(&mut self, gates: String, berth: &Berth) {
        let interface = &berth.interface;
        let before = self.berths.vacant.get(&gates);
        if let (Some(Vacancy::Shut(_)), Some(empty)) = (before, self.berths.empty)
            && self.holds(&gates, empty, interface)
        {
            return;
        }
        let now = match self.shut_vacancy(&gates, berth) {
            Ok(Some(place)) => Vacancy::Shut(place),
            Ok(None) => Vacancy::Missing,
            Err(error) => Vacancy::Failed(format!("{error:#}")),
        };
        if before != Some(&now) {
            let name = &interface.name;
            match &now {
                Vacancy::Shut(_) => tracing::info!(interface = name, "vacant, and shut"),
                Vacancy::Missing => tracing::info!(interface = name, "vacant, and missing"),
                Vacancy::Failed(error) => {
                    tracing::error!(interface = name, "vacant, but cannot be shut: {error}");
                }
            }
        }
        self.berths.vacant.insert(gates, now);
    }

    /// Shuts a berth that nobody has, unless the host needs its interface for itself.
    fn shut_vacancy(&self, gates: &str, berth: &Berth) -> Result<Option<Place>> {
        if !berth.force && matches!(self.kernel.presence(&berth.interface), Presence::Here(_)) {
            self.refuse_uplink(&berth.interface)?;
        }
        self.shut(gates, &berth.interface)
    }

    /// Points the gates of a berth to the empty slot, wherever they pointed before. `None`: there is
    /// no such interface, which takes no gates to shut.
    fn shut(&self, gates: &str, interface: &Interface) -> Result<Option<Place>> {
        let empty = self.berths.empty.context("there is no empty slot")?;
        match self.kernel.presence(interface) {
            Presence::Here(_) => self.attach(gates, empty, interface).map(Some),
            Presence::Unknown(problem) => bail!("cannot look for the interface: {problem}"),
            Presence::NoInterface | Presence::NoNamespace(_) => Ok(None),
        }
    }

    /// Takes a sandbox off its interface: a berth is shut, any other is left as it was before.
    pub(super) fn leave(&self, sandbox: &Sandbox) -> Result<()> {
        if self.berths.are_of(&sandbox.gates)
            && self.shut(&sandbox.gates, &interface(&sandbox.head))?.is_some()
        {
            return Ok(());
        }
        self.kernel.detach(&sandbox.gates)
    }
}
