//! Desired against actual: every change of a sandbox goes through here, one at a time.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use super::{
    berths::{Berth, Berths},
    change::{Candidate, Change},
    claims::Claims,
    egress::Egress,
    error::Error,
    floors::Floors,
    kernel::Kernel,
    ledger::Ledger,
    publish,
    rules::{Law, Pool},
    sandbox::split,
    slots::Slots,
    table::Table,
};
use crate::{
    policy::{Floor, Invalid, NetworkConfig, Policy, SandboxId, SandboxSpec},
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
    pub(super) floors: Floors,
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
        let floors = Floors::new(&law.floor);
        Self {
            kernel,
            egress,
            store,
            law,
            table,
            ledger,
            slots: Slots::default(),
            pool: Pool::default(),
            floors,
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
        self.check_way(&spec, &policy)?;
        Ok(self.candidate(spec, policy, &sandbox.rules.floor))
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

    /// `force`: whether an interface may be one that the host needs for itself.
    pub(super) fn check(
        &mut self,
        specs: Vec<SandboxSpec>,
        force: bool,
    ) -> Result<Vec<Candidate>, Error> {
        // Most changes move nobody, and a thousand sandboxes have a lot of addresses.
        let nobody_moves = specs.iter().all(|spec| self.stays(spec));
        let mut claims = if nobody_moves { Claims::default() } else { self.claims(&specs) };
        let mut seen = BTreeSet::new();
        let mut judged = Vec::with_capacity(specs.len());
        let mut asked = HashMap::new();
        for spec in specs {
            let id = spec.sandbox_id.clone();
            let refuse = |invalid| Error::invalid(&id, invalid);
            spec.validate().map_err(refuse)?;
            if !seen.insert(id.clone()) {
                return Err(refuse(Invalid::entry("sandboxID", id.as_str(), "is given twice")));
            }
            self.check_place(&spec, &mut claims, force).map_err(refuse)?;
            let policy = self.law.judge(&spec).map_err(refuse)?;
            self.check_way(&spec, &policy).map_err(refuse)?;
            let floor = self.floor_for(&spec, &mut asked)?;
            judged.push((spec, policy, floor));
        }
        let judged = judged.into_iter();
        Ok(judged.map(|(spec, policy, floor)| self.candidate(spec, policy, &floor)).collect())
    }

    /// The floor where a sandbox is to be. Where one is in place already it is followed at every look;
    /// for others the kernel is asked, once for each namespace.
    fn floor_for(
        &mut self,
        spec: &SandboxSpec,
        asked: &mut HashMap<Option<PathBuf>, Arc<Floor>>,
    ) -> Result<Arc<Floor>, Error> {
        let known = self.table.get(&spec.sandbox_id).filter(|known| known.is_where(spec));
        if let Some(known) = known {
            return Ok(Arc::clone(&known.rules.floor));
        }
        if let Some(floor) = asked.get(&spec.netns) {
            return Ok(Arc::clone(floor));
        }
        let learned = self.floors.learn(&*self.kernel, spec.netns.as_deref());
        let floor = learned.map_err(|cause| Error::Failed {
            sandbox: spec.sandbox_id.clone(),
            task: "cannot tell which addresses are the host's own",
            kept: "nothing was changed",
            cause,
        })?;
        asked.insert(spec.netns.clone(), Arc::clone(&floor));
        Ok(floor)
    }

    fn candidate(&mut self, spec: SandboxSpec, policy: Policy, floor: &Arc<Floor>) -> Candidate {
        let (head, network) = split(spec);
        let (rules, compiled) = self.pool.share(network, policy, floor);
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
