//! Interfaces come and go: brings back what is missing, and notices what went.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::MissedTickBehavior;

use super::{
    Agent,
    berths::Berth,
    change::Change,
    links,
    presence::Presence,
    publish,
    reconciler::Reconciler,
    sandbox::{Place, Sandbox, Status, interface},
};
use crate::{
    dataplane::{Interface, Slot},
    policy::SandboxId,
};

/// How often all interfaces are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Sandboxes, or interfaces without one, that are looked after before a change in waiting may go first.
const LOOK_AT: usize = 64;

impl Agent {
    /// Looks after interfaces that come and go, for ever: at once where the kernel tells, and all
    /// of them every now and then.
    pub async fn watch(self) {
        tokio::join!(self.follow_links(), self.look_around(), self.end_leases());
    }

    async fn look_around(&self) {
        let mut turns = tokio::time::interval(LOOK_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            // Pins of maps first: gates that call what is not pinned any more look like none.
            if let Err(error) = self.change(Reconciler::tidy).await {
                tracing::error!("cannot tidy up: {error}");
            }
            self.look_at_hosts().await;
            self.look_after(&self.table.all()).await;
            self.shut_vacant(&self.berths).await;
        }
    }

    async fn follow_links(&self) {
        let mut news = match links::follow() {
            Ok(news) => news,
            Err(error) => return tracing::warn!("new interfaces are noticed late: {error:#}"),
        };
        while let Some(names) = news.recv().await {
            let mut named = self.table.all();
            named.retain(|sandbox| {
                sandbox.head.netns.is_none() && names.contains(&sandbox.head.interface)
            });
            self.look_after(&named).await;
            let mut berths = self.berths.to_vec();
            berths.retain(|Berth { interface, .. }| {
                interface.netns.is_none() && names.contains(&interface.name)
            });
            self.shut_vacant(&berths).await;
        }
        tracing::warn!("new interfaces are noticed late from now on");
    }

    /// Learns which addresses the host has in the namespaces of the sandboxes.
    async fn look_at_hosts(&self) {
        let table = self.table.all();
        let namespaces: BTreeSet<_> = table.iter().map(|one| one.head.netns.clone()).collect();
        let namespaces: Vec<_> = namespaces.into_iter().collect();
        for some in namespaces.chunks(LOOK_AT) {
            let some = some.to_vec();
            let looked = self.change(move |reconciler| reconciler.learn_hosts(&some)).await;
            if let Err(error) = looked {
                tracing::error!("cannot look at the host's own addresses: {error}");
            }
        }
    }

    async fn shut_vacant(&self, berths: &[Berth]) {
        for some in berths.chunks(LOOK_AT) {
            let some = some.to_vec();
            let looked = self.change(move |reconciler| reconciler.shut_vacant(&some)).await;
            if let Err(error) = looked {
                tracing::error!("cannot look after the interfaces of [[interfaces]]: {error}");
            }
        }
    }

    async fn look_after(&self, sandboxes: &[Arc<Sandbox>]) {
        for some in sandboxes.chunks(LOOK_AT) {
            let ids: Vec<_> = some.iter().map(|sandbox| sandbox.id().clone()).collect();
            let looked = self.change(move |reconciler| {
                reconciler.follow_hosts(&ids);
                ids.iter().for_each(|id| reconciler.look_after(id));
            });
            if let Err(error) = looked.await {
                tracing::error!("cannot look after the interfaces: {error}");
            }
        }
    }
}

impl Reconciler {
    /// Looks after one sandbox. Does nothing where all is as it should be.
    pub fn look_after(&mut self, id: &SandboxId) {
        let Some(known) = self.table.get(id) else { return };
        let mut sandbox = Sandbox::clone(&known);
        let unpublished = match sandbox.policy {
            Some(_) => None,
            None => self.publish_again(&mut sandbox).err(),
        };
        self.settle(&mut sandbox, unpublished);
        let seen = |sandbox: &Sandbox| (sandbox.status.clone(), sandbox.place, sandbox.policy);
        if seen(&sandbox) != seen(&known) {
            self.table.insert(sandbox);
        }
    }

    /// Makes sure that a sandbox is attached. Its status tells whether it is, and whether its
    /// policy could be published.
    pub(super) fn settle(&self, sandbox: &mut Sandbox, unpublished: Option<anyhow::Error>) {
        if self.is_in_place(sandbox) {
            sandbox.status = Status::Enforcing;
        } else {
            self.reattach(sandbox);
        }
        if let (Some(error), Status::Enforcing) = (unpublished, &sandbox.status) {
            sandbox.status = Status::Failed(format!("cannot publish its policy: {error:#}"));
        }
        if let Err(error) = self.follow_rules(sandbox) {
            sandbox.status = Status::Failed(format!("no way to the egress proxy: {error:#}"));
        }
    }

    /// Forgets what has no use any more, and puts back what has to be pinned.
    pub fn tidy(&mut self) {
        self.ledger.prune();
        self.pool.prune();
        self.forget_hosts();
        if let Err(error) = self.kernel.restore_pins() {
            tracing::error!("cannot pin the maps again: {error:#}");
        }
    }

    /// Whether the gates are on the interface that now has the name.
    pub(super) fn is_in_place(&self, sandbox: &Sandbox) -> bool {
        sandbox.place.is_some()
            && self.holds(&sandbox.gates, sandbox.slot, &interface(&sandbox.head))
    }

    /// Whether gates point to this slot, and are on the interface that now has the name.
    pub(super) fn holds(&self, gates: &str, slot: Slot, wanted: &Interface) -> bool {
        self.kernel.is_attached(gates, slot, wanted).unwrap_or(false)
    }

    /// Attaches a sandbox if its interface is there, and says so in its status.
    pub(super) fn reattach(&self, sandbox: &mut Sandbox) {
        let (before, place) = (sandbox.status.clone(), sandbox.place);
        sandbox.status = match self.kernel.presence(&interface(&sandbox.head)) {
            Presence::Here(_) => match self.place(sandbox) {
                Ok(()) => Status::Enforcing,
                Err(error) => Status::Failed(format!("{error:#}")),
            },
            Presence::Unknown(_) => return,
            Presence::NoInterface | Presence::NoNamespace(_) => Status::InterfaceMissing,
        };
        if sandbox.status != Status::Enforcing {
            sandbox.place = None;
        }
        Self::say(sandbox, &before, place);
    }

    /// What became of a sandbox that was not attached, before in this status and place.
    fn say(sandbox: &Sandbox, before: &Status, place: Option<Place>) {
        let interface = &sandbox.head.interface;
        // The very interface that it was attached to, which the kernel never lets go of by itself.
        let were_there = *before == Status::Enforcing && place.is_some();
        match &sandbox.status {
            Status::Enforcing if were_there && place == sandbox.place => tracing::warn!(
                sandbox = %sandbox.id(),
                interface,
                "its gates were gone, or behind another program; attached again: what it sent \
                 meanwhile was not judged"
            ),
            Status::Enforcing => tracing::info!(sandbox = %sandbox.id(), interface, "attached"),
            Status::Failed(reason) if were_there => tracing::error!(
                sandbox = %sandbox.id(),
                interface,
                "its gates are gone, or behind another program, and cannot be attached: what it \
                 sends is not judged: {reason}"
            ),
            status if status != before => {
                tracing::warn!(sandbox = %sandbox.id(), "not attached: {status}");
            }
            _ => {}
        }
    }

    fn publish_again(&self, sandbox: &mut Sandbox) -> Result<()> {
        let change = Change::of_known(&Arc::new(sandbox.clone()), sandbox.rules.compile());
        for (_, published) in publish::all(&*self.kernel, &self.ledger, vec![change]) {
            sandbox.policy = Some(published?);
        }
        Ok(())
    }
}
