//! The agent: keeps what the kernel enforces equal to what was asked for.
//!
//! Changes go one at a time through the [`Reconciler`], off the async threads, since the kernel
//! makes them wait. Whoever only reads looks at the [`Table`] and waits for nobody.

mod adopt;
mod berths;
mod change;
mod claims;
mod create;
mod door;
mod egress;
mod error;
mod floors;
mod kernel;
mod lease;
mod ledger;
mod links;
mod presence;
mod publish;
mod reconciler;
mod report;
mod rules;
mod sandbox;
mod slots;
mod table;
mod tally;
mod turn;
mod undo;
mod watch;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Result, anyhow};
use tokio::{
    sync::{Mutex, Notify},
    task::{JoinError, spawn_blocking},
};

pub use self::{
    berths::Berth,
    create::Wish,
    egress::Egress,
    error::Error,
    kernel::Kernel,
    ledger::Ledger,
    presence::Presence,
    reconciler::{Outcomes, Reconciler, only},
    report::{Count, Report, totals},
    rules::{Law, Rules},
    sandbox::{Sandbox, Status, interface},
    table::Table,
    tally::{Protocol, Tally},
    turn::{Queue, Request},
};
use crate::{
    metrics::Timings,
    policy::{Floor, NetworkConfig, SandboxSpec},
    store::Store,
};

/// The agent, for its API. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    changes: Arc<Mutex<Reconciler>>,
    queue: Arc<Queue>,
    kernel: Arc<dyn Kernel>,
    egress: Arc<dyn Egress>,
    law: Arc<Law>,
    table: Arc<Table>,
    ledger: Arc<Ledger>,
    berths: Arc<[Berth]>,
    /// Some lease may end sooner, or later, than it was going to.
    renewed: Arc<Notify>,
    timings: Timings,
}

impl Agent {
    /// Takes over what is in the store and in the kernel. Blocks.
    ///
    /// # Errors
    /// The store or the kernel cannot be read.
    pub fn start(
        kernel: Arc<dyn Kernel>,
        egress: Arc<dyn Egress>,
        store: Store,
        law: Arc<Law>,
        ledger: Arc<Ledger>,
        berths: Vec<Berth>,
    ) -> Result<Self> {
        let berths: Arc<[Berth]> = berths.into();
        let table = Arc::default();
        let mut reconciler = Reconciler::new(
            kernel.clone(),
            egress.clone(),
            store,
            Arc::clone(&law),
            Arc::clone(&table),
            Arc::clone(&ledger),
            Arc::clone(&berths),
        );
        reconciler.adopt()?;
        let changes = Arc::new(Mutex::new(reconciler));
        let (queue, renewed, timings) = (Arc::default(), Arc::default(), Timings::default());
        Ok(Self { changes, queue, kernel, egress, law, table, ledger, berths, renewed, timings })
    }

    /// Creates or replaces sandboxes, all of which are checked before the first is changed. `force`:
    /// also on an interface that the host needs for itself.
    ///
    /// # Errors
    /// One of them is wrong, so nothing was changed.
    pub async fn apply(&self, specs: Vec<SandboxSpec>, force: bool) -> Result<Outcomes, Error> {
        self.queued(Request::Apply { specs, force }).await
    }

    /// Replaces a sandbox's egress fields.
    ///
    /// # Errors
    /// The configuration is wrong, there is no such sandbox, or the kernel or the disk refuses.
    pub async fn update_network(&self, id: String, network: NetworkConfig) -> Result<(), Error> {
        only(self.queued(Request::Network(id, Box::new(network))).await?)
    }

    /// Detaches a sandbox and forgets it.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel or the disk refuses.
    pub async fn delete(&self, id: String) -> Result<(), Error> {
        self.change(move |reconciler| reconciler.delete(&id)).await?
    }

    /// One sandbox with its counters.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel cannot be asked.
    pub async fn get(&self, id: &str) -> Result<Report, Error> {
        let sandbox = self.table.find(id).ok_or_else(|| Error::Unknown(id.to_owned()))?;
        let (kernel, egress) = (self.kernel.clone(), self.egress.clone());
        let report = spawn_blocking(move || Report::of(&sandbox, &*kernel, &*egress)).await;
        report.map_err(internal)?.map_err(Error::Internal)
    }

    /// All sandboxes with their counters.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn list(&self) -> Result<Vec<Report>, Error> {
        let (table, kernel, egress) =
            (self.table.clone(), self.kernel.clone(), self.egress.clone());
        let reports = spawn_blocking(move || {
            let all = table.all();
            let report = |sandbox: &Arc<Sandbox>| Report::of(sandbox, &*kernel, &*egress);
            all.iter().map(report).collect::<Result<Vec<_>>>()
        });
        reports.await.map_err(internal)?.map_err(Error::Internal)
    }

    /// The floor in a network namespace, with the host's own addresses there.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn floor_in(&self, netns: Option<PathBuf>) -> Result<Floor, Error> {
        let kernel = self.kernel.clone();
        let own = spawn_blocking(move || kernel.host_addresses(netns.as_deref())).await;
        // Where there is no such namespace, the host has no addresses either.
        Ok(self.law.floor.with_host(&own.map_err(internal)?.unwrap_or_default()))
    }

    /// The sandboxes, for whoever only reads.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// What slots and policy numbers mean.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What the operator decides for all sandboxes.
    #[must_use]
    pub fn law(&self) -> &Arc<Law> {
        &self.law
    }

    /// The kernel's side.
    #[must_use]
    pub fn kernel(&self) -> &Arc<dyn Kernel> {
        &self.kernel
    }

    /// How long changes took.
    #[must_use]
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Does what is asked for when it is its turn, together with what others ask for by then.
    async fn queued(&self, request: Request) -> Result<Outcomes, Error> {
        let start = Instant::now();
        let mut answer = self.queue.push(request);
        let queue = self.queue.clone();
        // Who is answered in somebody else's turn gives up its own: if it waited for that, there would
        // never be more than one to share a turn.
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            served = self.change(move |reconciler| queue.serve(reconciler)) => {
                served?;
                answer.await
            }
        };
        let outcomes = answered.map_err(|_| Error::Internal(anyhow!("not answered")))??;
        if outcomes.iter().all(|(_, outcome)| outcome.is_ok()) {
            self.timings.observe(start.elapsed());
        }
        Ok(outcomes)
    }

    async fn timed<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reconciler) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let result = self.change(work).await?;
        if result.is_ok() {
            self.timings.observe(start.elapsed());
        }
        result
    }

    /// Does one change after the others. It is finished even if nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reconciler) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let mut reconciler = self.changes.clone().lock_owned().await;
        spawn_blocking(move || work(&mut reconciler)).await.map_err(internal)
    }
}

fn internal(error: JoinError) -> Error {
    Error::Internal(anyhow!(error))
}
