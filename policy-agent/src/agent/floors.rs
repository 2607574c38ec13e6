//! The floor in each network namespace that has sandboxes' interfaces: the operator's lists, and the
//! host's own addresses there. They are asked for when a sandbox comes, and followed at every look.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use ipnet::IpNet;

use super::{
    change::Change,
    kernel::Kernel,
    presence::{Namespace, namespace},
    publish,
    reconciler::Reconciler,
    sandbox::Sandbox,
};
use crate::policy::{Floor, SandboxId};

/// What is known of the namespaces.
#[derive(Debug)]
pub struct Floors {
    /// Of a namespace that is not there.
    base: Arc<Floor>,
    known: HashMap<Namespace, Known>,
}

#[derive(Debug)]
struct Known {
    /// As the kernel tells them.
    addresses: Vec<IpNet>,
    floor: Arc<Floor>,
}

impl Floors {
    /// Nothing is known yet but the operator's lists.
    #[must_use]
    pub fn new(floor: &Floor) -> Self {
        Self { base: Arc::new(floor.clone()), known: HashMap::new() }
    }

    /// The floor in a namespace, by the addresses that the host has there now. Where there is no such
    /// namespace, nothing can be attached, and the operator's lists are all.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn learn(&mut self, kernel: &dyn Kernel, netns: Option<&Path>) -> Result<Arc<Floor>> {
        let Ok(namespace) = namespace(netns) else { return Ok(Arc::clone(&self.base)) };
        let addresses = kernel.host_addresses(netns)?;
        if let Some(known) = self.known.get(&namespace)
            && known.addresses == addresses
        {
            return Ok(Arc::clone(&known.floor));
        }
        let floor = self.shared(self.base.with_host(&addresses));
        if floor.is_widened(&addresses) {
            tracing::warn!(
                netns = ?netns,
                addresses = addresses.len(),
                "the host has too many addresses of its own: sandboxes are kept from wider networks"
            );
        }
        self.known.insert(namespace, Known { addresses, floor: Arc::clone(&floor) });
        Ok(floor)
    }

    /// The same without asking the kernel; `None`: it is not known, or there is no such namespace.
    #[must_use]
    pub fn known(&self, netns: Option<&Path>) -> Option<Arc<Floor>> {
        let known = self.known.get(&namespace(netns).ok()?)?;
        Some(Arc::clone(&known.floor))
    }

    /// An equal floor that is in use somewhere, or this one.
    fn shared(&self, floor: Floor) -> Arc<Floor> {
        let mut in_use = self.known.values().map(|known| &known.floor).chain([&self.base]);
        let equal = in_use.find(|known| known.host == floor.host).cloned();
        equal.unwrap_or_else(|| Arc::new(floor))
    }

    /// Forgets all namespaces but these.
    fn keep(&mut self, used: &HashSet<Namespace>) {
        self.known.retain(|namespace, _| used.contains(namespace));
    }
}

impl Reconciler {
    /// The floor for a sandbox that is taken over. Where the kernel does not tell the host's addresses,
    /// every address may be one, until it does.
    pub(super) fn floor_of_adopted(&mut self, netns: Option<&Path>) -> Arc<Floor> {
        if let Some(known) = self.floors.known(netns) {
            return known;
        }
        self.floors.learn(&*self.kernel, netns).unwrap_or_else(|error| {
            tracing::error!(?netns, "{error:#}: only platform_allow stays open");
            Arc::new(self.law.floor.with_unknown_host())
        })
    }

    /// Asks for the host's addresses in these namespaces. What is known stays where the kernel does
    /// not tell.
    pub fn learn_hosts(&mut self, namespaces: &[Option<PathBuf>]) {
        for netns in namespaces {
            if let Err(error) = self.floors.learn(&*self.kernel, netns.as_deref()) {
                tracing::error!(?netns, "{error:#}: those that it had stay closed");
            }
        }
    }

    /// Forgets namespaces in which no sandbox is any more: the kernel may use their numbers again.
    pub fn forget_hosts(&mut self) {
        let paths: HashSet<_> =
            self.table.all().iter().map(|sandbox| sandbox.head.netns.clone()).collect();
        let used = paths.iter().filter_map(|path| namespace(path.as_deref()).ok()).collect();
        self.floors.keep(&used);
    }

    /// Puts the policies of these sandboxes in force again where the host's addresses have changed.
    pub fn follow_hosts(&mut self, ids: &[SandboxId]) {
        let stale: Vec<Change> = ids.iter().filter_map(|id| self.under_new_floor(id)).collect();
        if stale.is_empty() {
            return;
        }
        for (change, published) in publish::all(&*self.kernel, &self.ledger, stale) {
            let sandbox = change.sandbox;
            let followed = published.and_then(|policy| {
                let sandbox = Sandbox { policy: Some(policy), ..sandbox.clone() };
                self.follow_rules(&sandbox)?;
                self.table.insert(sandbox);
                Ok(())
            });
            match followed {
                Ok(()) => tracing::info!(
                    sandbox = %sandbox.id(),
                    "the host's own addresses have changed; they are denied as they are now"
                ),
                // It is tried again at the next look.
                Err(error) => tracing::error!(
                    sandbox = %sandbox.id(),
                    "cannot deny the host's own addresses as they are now: {error:#}"
                ),
            }
        }
    }

    fn under_new_floor(&mut self, id: &SandboxId) -> Option<Change> {
        let known = self.table.get(id)?;
        let floor = self.floors.known(known.head.netns.as_deref())?;
        if Arc::ptr_eq(&floor, &known.rules.floor) || floor == known.rules.floor {
            return None;
        }
        let (network, policy) = (known.rules.network.clone(), known.rules.policy.clone());
        let (rules, compiled) = self.pool.share(network, policy, &floor);
        let sandbox = Arc::new(Sandbox { rules, ..Sandbox::clone(&known) });
        Some(Change::of_known(&sandbox, compiled))
    }
}
