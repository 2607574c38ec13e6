//! The agent: keeps what the kernel enforces equal to what was asked for.
//!
//! Changes go one at a time through the [`Reconciler`], off the async threads, since the kernel
//! makes them wait. Whoever only reads looks at the [`SandboxRegistry`] and waits for nobody.

mod attachments;
mod command;
mod dataplane_control;
mod endpoint_validator;
mod error;
mod expiry;
mod floor_cache;
mod hex;
mod interface_pool;
mod interface_state;
mod link_events;
mod orphaned_pins;
mod pooled_interface;
mod proxy_control;
mod proxy_redirects;
mod queue;
mod reconciler;
mod sandbox;
mod timings;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use tokio::{
    sync::{Mutex, Notify},
    task::{JoinError, spawn_blocking},
};

pub(crate) use self::hex::HexDisplay;
use self::{
    command::{AgentCommand, CommandResult},
    queue::CommandQueue,
};
pub use self::{
    dataplane_control::DataplaneControl,
    error::AgentError,
    interface_state::InterfaceState,
    pooled_interface::PooledInterface,
    proxy_control::ProxyControl,
    reconciler::{ApplyResults, Reconciler, create::CreateRequest, single_result},
    sandbox::{
        EnforcementStatus, Sandbox,
        active_policy::{ActivePolicy, PlatformPolicy},
        attribution::EventAttribution,
        interface_for,
        lifetime::{SandboxLifetime, SandboxMetadata},
        proxy_counters::{ConnectionProtocol, SandboxProxyCounters},
        registry::SandboxRegistry,
        report::{SandboxReport, TrafficCount, total_counters},
        store::SandboxStore,
    },
    timings::ApplyTimings,
};
use crate::policy::{Floor, NetworkConfig, SandboxSpec};

/// The agent, for its API. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    reconciler: Arc<Mutex<Reconciler>>,
    queue: Arc<CommandQueue>,
    dataplane: Arc<dyn DataplaneControl>,
    proxy: Arc<dyn ProxyControl>,
    platform_policy: Arc<PlatformPolicy>,
    registry: Arc<SandboxRegistry>,
    attribution: Arc<EventAttribution>,
    pooled_interfaces: Arc<[PooledInterface]>,
    /// Some lease may end sooner, or later, than it was going to.
    lease_changed: Arc<Notify>,
    timings: ApplyTimings,
}

impl Agent {
    /// Takes over what is in the store and in the kernel. Blocks.
    ///
    /// # Errors
    /// The store or the kernel cannot be read.
    pub fn start(
        dataplane: Arc<dyn DataplaneControl>,
        proxy: Arc<dyn ProxyControl>,
        store: SandboxStore,
        platform_policy: Arc<PlatformPolicy>,
        attribution: Arc<EventAttribution>,
        pooled_interfaces: Vec<PooledInterface>,
    ) -> Result<Self> {
        let pooled_interfaces: Arc<[PooledInterface]> = pooled_interfaces.into();
        let registry = Arc::default();
        let mut reconciler = Reconciler::new(
            &dataplane,
            proxy.clone(),
            store,
            Arc::clone(&platform_policy),
            Arc::clone(&registry),
            Arc::clone(&attribution),
            Arc::clone(&pooled_interfaces),
        );
        reconciler.adopt()?;
        let changes = Arc::new(Mutex::new(reconciler));
        let (queue, lease_changed, timings) =
            (Arc::default(), Arc::default(), ApplyTimings::default());
        Ok(Self {
            reconciler: changes,
            queue,
            dataplane,
            proxy,
            platform_policy,
            registry,
            attribution,
            pooled_interfaces,
            lease_changed,
            timings,
        })
    }

    /// Creates or replaces sandboxes, all of which are checked before the first is changed. `force`:
    /// also on an interface that the host needs for itself.
    ///
    /// # Errors
    /// One of them is wrong, so nothing was changed.
    pub async fn apply(
        &self,
        specs: Vec<SandboxSpec>,
        force: bool,
    ) -> Result<ApplyResults, AgentError> {
        self.submit(AgentCommand::Apply { specs, force }).await?.into_results()
    }

    /// Replaces a sandbox's egress fields.
    ///
    /// # Errors
    /// The configuration is wrong, there is no such sandbox, or the kernel or the disk refuses.
    pub async fn update_network(
        &self,
        id: String,
        network: NetworkConfig,
    ) -> Result<(), AgentError> {
        let command = AgentCommand::UpdateNetwork(id, Box::new(network));
        single_result(self.submit(command).await?.into_results()?)
    }

    /// Detaches a sandbox and forgets it.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel or the disk refuses.
    pub async fn delete(&self, id: String) -> Result<(), AgentError> {
        self.submit(AgentCommand::Delete(id)).await.map(|_| ())
    }

    /// Creates a sandbox on a free interface of `[[interfaces]]`. Its policy is enforced when this returns.
    ///
    /// # Errors
    /// The request is wrong; no interface is free ([`AgentError::NoFreeInterface`]); the idempotency key belongs to
    /// another request ([`AgentError::IdempotencyKeyReused`]); or the kernel or the disk refuses.
    pub async fn create(&self, request: CreateRequest) -> Result<Arc<Sandbox>, AgentError> {
        let reply = self.submit(AgentCommand::Create(Box::new(request))).await?;
        let created = reply.into_sandbox()?;
        self.lease_changed.notify_one();
        Ok(created)
    }

    /// Makes a sandbox's lease end `timeout` from now. A sandbox that `apply` made has no lease, and
    /// gets none.
    ///
    /// # Errors
    /// There is no such sandbox, the timeout is too long, or the disk refuses.
    pub async fn renew(&self, id: &str, timeout: Duration) -> Result<Arc<Sandbox>, AgentError> {
        let reply = self.submit(AgentCommand::RenewLease(id.to_owned(), timeout)).await?;
        let renewed = reply.into_sandbox()?;
        self.lease_changed.notify_one();
        Ok(renewed)
    }

    /// One sandbox with its counters.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel cannot be asked.
    pub async fn get(&self, id: &str) -> Result<SandboxReport, AgentError> {
        let sandbox =
            self.registry.find(id).ok_or_else(|| AgentError::UnknownSandbox(id.to_owned()))?;
        let (dataplane, proxy) = (self.dataplane.clone(), self.proxy.clone());
        let report =
            spawn_blocking(move || SandboxReport::collect(&sandbox, &*dataplane, &*proxy)).await;
        report.map_err(internal_error)?.map_err(AgentError::Internal)
    }

    /// All sandboxes with their counters.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn list(&self) -> Result<Vec<SandboxReport>, AgentError> {
        let (registry, dataplane, proxy) =
            (self.registry.clone(), self.dataplane.clone(), self.proxy.clone());
        let reports = spawn_blocking(move || {
            let all = registry.all();
            let report =
                |sandbox: &Arc<Sandbox>| SandboxReport::collect(sandbox, &*dataplane, &*proxy);
            all.iter().map(report).collect::<Result<Vec<_>>>()
        });
        reports.await.map_err(internal_error)?.map_err(AgentError::Internal)
    }

    /// The floor in a network namespace, with the host's own addresses there.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn floor_in_namespace(&self, netns: Option<PathBuf>) -> Result<Floor, AgentError> {
        let dataplane = self.dataplane.clone();
        let host_addresses =
            spawn_blocking(move || dataplane.host_addresses(netns.as_deref())).await;
        // Where there is no such namespace, the host has no addresses either.
        Ok(self
            .platform_policy
            .floor
            .with_host_addresses(&host_addresses.map_err(internal_error)?.unwrap_or_default()))
    }

    /// The sandboxes, for whoever only reads.
    #[must_use]
    pub fn registry(&self) -> &Arc<SandboxRegistry> {
        &self.registry
    }

    /// What slots and policy numbers mean.
    #[must_use]
    pub fn attribution(&self) -> &Arc<EventAttribution> {
        &self.attribution
    }

    /// What the operator decides for all sandboxes.
    #[must_use]
    pub fn platform_policy(&self) -> &Arc<PlatformPolicy> {
        &self.platform_policy
    }

    /// The kernel's side.
    #[must_use]
    pub fn dataplane(&self) -> &Arc<dyn DataplaneControl> {
        &self.dataplane
    }

    /// How long changes took.
    #[must_use]
    pub fn timings(&self) -> &ApplyTimings {
        &self.timings
    }

    /// Executes a command, together with those that can share its grace period.
    async fn submit(&self, command: AgentCommand) -> CommandResult {
        let start = Instant::now();
        let mut reply = self.queue.push(command);
        // A caller whose command was executed in another batch returns without taking the lock. If it
        // waited for that, there would never be more than one command in a batch. A caller whose batch
        // held other commands only takes the lock again.
        let received = loop {
            tokio::select! {
                biased;
                received = &mut reply => break received,
                executed = self.run_batch() => executed?,
            }
        };
        let reply = received.map_err(|_| AgentError::Internal(anyhow!("not answered")))??;
        if reply.is_enforced() {
            self.timings.observe(start.elapsed());
        }
        Ok(reply)
    }

    /// Executes one batch. It is finished even if its callers leave.
    async fn run_batch(&self) -> Result<(), AgentError> {
        let queue = Arc::clone(&self.queue);
        let mut reconciler = Arc::clone(&self.reconciler).lock_owned().await;
        spawn_blocking(move || queue.run_batch(&mut reconciler)).await.map_err(internal_error)
    }
}

fn internal_error(error: JoinError) -> AgentError {
    AgentError::Internal(anyhow!(error))
}
