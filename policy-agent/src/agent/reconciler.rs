//! Desired against actual: every change of a sandbox goes through here, one at a time.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    berths::{Berth, Berths},
    change::{Candidate, Change},
    egress::Egress,
    error::Error,
    kernel::Kernel,
    ledger::Ledger,
    presence::{Namespace, namespace},
    publish,
    rules::{Law, Pool},
    sandbox::{Sandbox, interface, split},
    slots::Slots,
    table::Table,
};
use crate::{
    policy::{Invalid, NetworkConfig, SandboxId, SandboxSpec},
    store::Store,
};

/// What became of each sandbox of an `apply`.
pub type Outcomes = Vec<(SandboxId, Result<(), Error>)>;

/// The owner of everything that changes. Its methods block.
pub struct Reconciler {
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) egress: Arc<dyn Egress>,
    pub(super) store: Store,
    pub(super) law: Arc<Law>,
    pub(super) table: Arc<Table>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) slots: Slots,
    pub(super) pool: Pool,
    pub(super) berths: Berths,
    /// Attached by an agent before this one, and not in the store: they stay as they are.
    pub(super) orphans: BTreeSet<String>,
}

impl Reconciler {
    /// A reconciler that knows no sandbox yet.
    #[must_use]
    pub fn new(
        kernel: Arc<dyn Kernel>,
        egress: Arc<dyn Egress>,
        store: Store,
        law: Arc<Law>,
        table: Arc<Table>,
        ledger: Arc<Ledger>,
        berths: Arc<[Berth]>,
    ) -> Self {
        Self {
            kernel,
            egress,
            store,
            law,
            table,
            ledger,
            slots: Slots::default(),
            pool: Pool::default(),
            berths: Berths::new(berths),
            orphans: BTreeSet::new(),
        }
    }

    /// A sandbox with its egress fields replaced, as `PUT …/network` asks.
    pub(super) fn check_update(
        &mut self,
        id: &str,
        update: &NetworkConfig,
    ) -> Result<Candidate, Error> {
        let known = self.table.find(id);
        let before = known.as_ref().map(|sandbox| &sandbox.rules.network);
        let network = before.unwrap_or(&NetworkConfig::default()).replace_egress(update)?;
        let Some(sandbox) = known else {
            self.law.judge_network(&network, None)?;
            return Err(Error::Unknown(id.to_owned()));
        };
        let head = SandboxSpec::clone(&sandbox.head);
        // An update that says nothing about internet access lifts what was said before.
        let spec = SandboxSpec { network, allow_internet_access: None, ..head };
        let policy = self.law.judge(&spec)?;
        Ok(self.candidate(spec, policy))
    }

    /// Detaches a sandbox and forgets it.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel or the disk refuses; it is still known then.
    pub fn delete(&mut self, id: &str) -> Result<(), Error> {
        let Some(sandbox) = self.table.find(id) else { return self.delete_orphan(id) };
        let refuse = |task, cause| Error::Failed {
            sandbox: sandbox.id().clone(),
            task,
            kept: "it is kept; delete it again",
            cause,
        };
        // First the disk: where that refuses, nothing was opened. What is attached and not on disk
        // stays shut, should the agent die in between.
        let forget = self.store.remove(sandbox.id());
        forget.map_err(|cause| refuse("cannot forget it", cause))?;
        if let Err(cause) = self.leave(&sandbox) {
            if let Err(error) = self.store.save(&sandbox.entry()) {
                tracing::error!(sandbox = id, "cannot write it back to disk: {error:#}");
            }
            return Err(refuse("cannot detach it", cause));
        }
        self.table.remove(sandbox.id());
        sandbox.life.end();
        self.release(sandbox.slot);
        self.pool.prune();
        tracing::info!(sandbox = id, "deleted");
        Ok(())
    }

    fn delete_orphan(&mut self, id: &str) -> Result<(), Error> {
        if !self.orphans.contains(id) {
            return Err(Error::Unknown(id.to_owned()));
        }
        self.kernel.detach(id).map_err(Error::Internal)?;
        self.orphans.remove(id);
        tracing::info!(sandbox = id, "detached what an earlier agent left");
        Ok(())
    }

    pub(super) fn check(&mut self, specs: Vec<SandboxSpec>) -> Result<Vec<Candidate>, Error> {
        let mut owners = self.owners();
        let mut seen = BTreeSet::new();
        let mut judged = Vec::with_capacity(specs.len());
        for spec in specs {
            let id = spec.sandbox_id.clone();
            let refuse = |invalid| Error::invalid(&id, invalid);
            spec.validate().map_err(refuse)?;
            if !seen.insert(id.clone()) {
                return Err(refuse(Invalid::entry("sandboxID", id.as_str(), "is given twice")));
            }
            self.check_interface(&spec, &mut owners).map_err(refuse)?;
            let policy = self.law.judge(&spec).map_err(refuse)?;
            judged.push((spec, policy));
        }
        Ok(judged.into_iter().map(|(spec, policy)| self.candidate(spec, policy)).collect())
    }

    /// An interface has to be there before the kernel can be told to enforce anything on it, and
    /// it belongs to one sandbox.
    pub(super) fn check_interface(
        &self,
        spec: &SandboxSpec,
        owners: &mut HashMap<(String, Namespace), SandboxId>,
    ) -> Result<(), Invalid> {
        let wanted = interface(spec);
        let known = self.table.get(&spec.sandbox_id);
        if known.is_none_or(|sandbox| interface(&sandbox.head) != wanted) {
            self.kernel.presence(&wanted).index(&wanted)?;
        }
        // A known sandbox may wait for its namespace, and nobody else can be in it then.
        let Ok(namespace) = namespace(spec.netns.as_deref()) else { return Ok(()) };
        let id = spec.sandbox_id.clone();
        match owners.insert((wanted.name.clone(), namespace), id) {
            Some(owner) if owner != spec.sandbox_id && self.is_in(&owner, namespace) => {
                Err(Invalid::entry(
                    "interface",
                    wanted.name,
                    format!("belongs to sandbox {owner}; an interface has one sandbox"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether a sandbox's namespace is this one. What was found when it was attached may be out
    /// of date: the kernel gives a new namespace the number of one that is gone.
    pub(super) fn is_in(&self, id: &SandboxId, wanted: Namespace) -> bool {
        let Some(sandbox) = self.table.get(id) else { return true };
        namespace(sandbox.head.netns.as_deref()).is_ok_and(|found| found == wanted)
    }

    pub(super) fn owners(&self) -> HashMap<(String, Namespace), SandboxId> {
        let owner = |sandbox: &Arc<Sandbox>| {
            let namespace = sandbox.place?.namespace?;
            Some(((sandbox.head.interface.clone(), namespace), sandbox.id().clone()))
        };
        self.table.all().iter().filter_map(owner).collect()
    }

    fn candidate(&mut self, spec: SandboxSpec, policy: crate::policy::Policy) -> Candidate {
        let (head, network) = split(spec);
        let (rules, compiled) = self.pool.share(network, policy, &self.law.floor);
        Candidate { head, rules, compiled }
    }

    /// The same as [`Self::commit`] for a single change.
    pub(super) fn commit_one(&mut self, change: Change) -> Result<(), Error> {
        let mut outcomes = Outcomes::new();
        self.commit(vec![change], &mut outcomes);
        only(outcomes)
    }

    /// Publishes what is staged and finishes it, or undoes it.
    pub(super) fn commit(&mut self, staged: Vec<Change>, outcomes: &mut Outcomes) {
        let published = publish::all(&*self.kernel, &self.ledger, staged);
        for (change, published) in published {
            let id = change.id().clone();
            let outcome = match published {
                Ok(policy) => self.finish(change, policy),
                Err(cause) => Err(self.undo(change, "cannot publish its policy", cause)),
            };
            outcomes.push((id, outcome));
        }
    }
}

/// The outcome where there is one sandbox.
///
/// # Errors
/// Its own.
pub fn only(mut outcomes: Outcomes) -> Result<(), Error> {
    outcomes.pop().map_or(Ok(()), |(_, outcome)| outcome)
}
