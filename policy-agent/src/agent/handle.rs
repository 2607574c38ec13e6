//! The handle to the agent that the API and the daemon hold. It queues changes, and answers queries
//! without waiting for a change.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use tokio::{
    sync::{Mutex, Notify},
    task::{JoinError, spawn_blocking},
};

use super::{
    AgentError, ApplyResults, ApplyTimings, CreateRequest, CurrentPlatformPolicy, DataplaneControl,
    EventAttribution, PlatformPolicy, PooledInterface, ProxyControl, Reconciler, Sandbox,
    SandboxRegistry, SandboxReport, SandboxStore, SandboxTraffic,
    command::{AgentCommand, CommandResult},
    queue::CommandQueue,
    sandbox::issued_tokens::IssuedToken,
    single_result,
};
use crate::policy::{
    ContainerEndpoint, Floor, ListChange, ListEdit, NetworkConfig, PolicyMode, SandboxId,
    SandboxSpec,
};

/// A handle to the agent, for its API. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    reconciler: Arc<Mutex<Reconciler>>,
    queue: Arc<CommandQueue>,
    dataplane: Arc<dyn DataplaneControl>,
    proxy: Arc<dyn ProxyControl>,
    platform_policy: CurrentPlatformPolicy,
    pub(super) registry: Arc<SandboxRegistry>,
    pub(super) pooled_interfaces: Arc<[PooledInterface]>,
    /// Notified when a lease may end sooner or later than before.
    pub(super) lease_changed: Arc<Notify>,
    timings: ApplyTimings,
}

impl Agent {
    /// Adopts the sandboxes in the store and in the kernel. Blocks.
    ///
    /// # Errors
    /// The store or the kernel cannot be read.
    pub fn start(
        dataplane: Arc<dyn DataplaneControl>,
        proxy: Arc<dyn ProxyControl>,
        store: SandboxStore,
        platform_policy: CurrentPlatformPolicy,
        attribution: Arc<EventAttribution>,
        pooled_interfaces: Vec<PooledInterface>,
    ) -> Result<Self> {
        let pooled_interfaces: Arc<[PooledInterface]> = pooled_interfaces.into();
        let registry = Arc::default();
        let mut reconciler = Reconciler::new(
            &dataplane,
            Arc::clone(&proxy),
            store,
            platform_policy.clone(),
            Arc::clone(&registry),
            attribution,
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
            pooled_interfaces,
            lease_changed,
            timings,
        })
    }

    /// Creates or replaces sandboxes. All of them are validated before any is changed. `force`
    /// allows interfaces that the host itself needs.
    ///
    /// # Errors
    /// One of the sandboxes is invalid. Nothing was changed.
    pub async fn apply(
        &self,
        specs: Vec<SandboxSpec>,
        force: bool,
    ) -> Result<ApplyResults, AgentError> {
        let created = specs.iter().map(|spec| &spec.sandbox_id);
        let created = created.filter(|id| self.registry.get(id).is_none()).cloned().collect();
        let _notice = self.registry.announce(created);
        self.submit(AgentCommand::Apply { specs, force }).await?.into_results()
    }

    /// Replaces the egress fields of a sandbox.
    ///
    /// # Errors
    /// The configuration is invalid, there is no such sandbox, or the kernel or the disk reports an
    /// error.
    pub async fn update_network(
        &self,
        id: String,
        network: NetworkConfig,
    ) -> Result<(), AgentError> {
        let command = AgentCommand::UpdateNetwork(id, Box::new(network));
        single_result(self.submit(command).await?.into_results()?)
    }

    /// Validates sandboxes as [`Self::apply`] does, and changes nothing.
    ///
    /// # Errors
    /// One of the sandboxes is invalid.
    pub async fn validate(&self, specs: Vec<SandboxSpec>, force: bool) -> Result<(), AgentError> {
        self.submit(AgentCommand::Validate { specs, force }).await.map(|_| ())
    }

    /// Changes one list of a sandbox, or only validates the change.
    ///
    /// # Errors
    /// The change is invalid or has no effect, there is no such sandbox, or the kernel or the disk
    /// reports an error.
    pub async fn edit_list(
        &self,
        id: String,
        edit: ListEdit,
        dry_run: bool,
    ) -> Result<ListChange, AgentError> {
        let command = AgentCommand::EditList { id, edit: Box::new(edit), dry_run };
        self.submit(command).await?.into_change()
    }

    /// Observes a sandbox, until a time if there is one, or enforces its policy.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel or the disk reports an error.
    pub async fn set_mode(
        &self,
        id: String,
        mode: PolicyMode,
        until: Option<Timestamp>,
    ) -> Result<(), AgentError> {
        let command = AgentCommand::SetMode { id, mode, until };
        single_result(self.submit(command).await?.into_results()?)
    }

    /// Moves a sandbox to where its container is now. `None` means that the container does not run.
    ///
    /// # Errors
    /// There is no such sandbox, it cannot have that interface, or the kernel or the disk reports an
    /// error.
    pub(crate) async fn move_container(
        &self,
        id: SandboxId,
        endpoint: Option<ContainerEndpoint>,
    ) -> Result<(), AgentError> {
        let command = AgentCommand::MoveContainer(id, endpoint);
        single_result(self.submit(command).await?.into_results()?)
    }

    /// Detaches and deletes a sandbox.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel or the disk reports an error.
    pub async fn delete(&self, id: String) -> Result<(), AgentError> {
        self.submit(AgentCommand::Delete(id)).await.map(|_| ())
    }

    /// Creates a sandbox on a free interface of `[[interfaces]]`. The kernel enforces its policy
    /// when this returns.
    ///
    /// # Errors
    /// The request is invalid; no interface is free ([`AgentError::NoFreeInterface`]); the
    /// idempotency key belongs to another request ([`AgentError::IdempotencyKeyReused`]); or the
    /// kernel or the disk reports an error.
    pub async fn create(&self, request: CreateRequest) -> Result<Arc<Sandbox>, AgentError> {
        let reply = self.submit(AgentCommand::Create(Box::new(request))).await?;
        let created = reply.into_sandbox()?;
        self.lease_changed.notify_one();
        Ok(created)
    }

    /// Sets the lease of a sandbox to end `timeout` from now. A sandbox that `apply` created has no
    /// lease and does not get one.
    ///
    /// # Errors
    /// There is no such sandbox, the timeout is too long, or the disk reports an error.
    pub async fn renew(&self, id: &str, timeout: Duration) -> Result<Arc<Sandbox>, AgentError> {
        let reply = self.submit(AgentCommand::RenewLease(id.to_owned(), timeout)).await?;
        let renewed = reply.into_sandbox()?;
        self.lease_changed.notify_one();
        Ok(renewed)
    }

    /// Issues another token for the public URLs of a sandbox, which is valid for this time.
    ///
    /// # Errors
    /// There is no such sandbox, it has too many tokens, or the disk reports an error.
    pub async fn issue_token(
        &self,
        id: String,
        lifetime: Duration,
    ) -> Result<IssuedToken, AgentError> {
        self.submit(AgentCommand::IssueToken(id, lifetime)).await?.into_token()
    }

    /// Revokes the tokens that were issued for a sandbox. It keeps its own.
    ///
    /// # Errors
    /// There is no such sandbox, or the disk reports an error.
    pub async fn revoke_tokens(&self, id: String) -> Result<(), AgentError> {
        self.submit(AgentCommand::RevokeTokens(id)).await.map(|_| ())
    }

    /// Puts another policy of the operator in force for all sandboxes, or for none. Returns the
    /// number of sandboxes whose policies changed.
    ///
    /// # Errors
    /// The policy of a sandbox would be invalid, or the kernel reports an error. Nothing was
    /// changed.
    pub async fn replace_platform_policy(
        &self,
        platform_policy: PlatformPolicy,
    ) -> Result<usize, AgentError> {
        let command = AgentCommand::ReplacePlatformPolicy(Box::new(platform_policy));
        self.submit(command).await?.into_replaced_policies()
    }

    /// Returns one sandbox with its counters.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel cannot be queried.
    pub async fn get(&self, id: &str) -> Result<SandboxReport, AgentError> {
        let sandbox = self.registry.require(id)?;
        let (dataplane, proxy) = (Arc::clone(&self.dataplane), Arc::clone(&self.proxy));
        let report =
            spawn_blocking(move || SandboxReport::collect(&sandbox, &*dataplane, &*proxy)).await;
        report.map_err(internal_error)?.map_err(AgentError::Internal)
    }

    /// Returns all sandboxes with their counters.
    ///
    /// # Errors
    /// The kernel cannot be queried.
    pub async fn list(&self) -> Result<Vec<SandboxReport>, AgentError> {
        let (registry, dataplane, proxy) =
            (Arc::clone(&self.registry), Arc::clone(&self.dataplane), Arc::clone(&self.proxy));
        let reports = spawn_blocking(move || {
            let all = registry.all();
            let report =
                |sandbox: &Arc<Sandbox>| SandboxReport::collect(sandbox, &*dataplane, &*proxy);
            all.iter().map(report).collect::<Result<Vec<_>>>()
        });
        reports.await.map_err(internal_error)?.map_err(AgentError::Internal)
    }

    /// The traffic of all sandboxes.
    ///
    /// # Errors
    /// The kernel cannot be queried.
    pub async fn traffic(&self) -> Result<Vec<SandboxTraffic>, AgentError> {
        let (registry, dataplane, proxy) =
            (Arc::clone(&self.registry), Arc::clone(&self.dataplane), Arc::clone(&self.proxy));
        let collected = spawn_blocking(move || {
            let all = registry.all();
            let traffic =
                |sandbox: &Arc<Sandbox>| SandboxTraffic::collect(sandbox, &*dataplane, &*proxy);
            all.iter().map(traffic).collect::<Result<Vec<_>>>()
        });
        collected.await.map_err(internal_error)?.map_err(AgentError::Internal)
    }

    /// Returns the floor of a network namespace, including the host's own addresses there.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn floor_in_namespace(&self, netns: Option<PathBuf>) -> Result<Floor, AgentError> {
        let dataplane = Arc::clone(&self.dataplane);
        let host_addresses =
            spawn_blocking(move || dataplane.host_addresses(netns.as_deref())).await;
        // If the namespace does not exist, the host has no addresses there.
        Ok(self
            .platform_policy
            .get()
            .floor
            .with_host_addresses(&host_addresses.map_err(internal_error)?.unwrap_or_default()))
    }

    /// The registry of sandboxes, for readers.
    #[must_use]
    pub fn registry(&self) -> &Arc<SandboxRegistry> {
        &self.registry
    }

    /// The operator's policy in force for all sandboxes.
    #[must_use]
    pub fn platform_policy(&self) -> Arc<PlatformPolicy> {
        self.platform_policy.get()
    }

    /// How many interfaces of `[[interfaces]]` sandboxes have, and how many are free.
    #[must_use]
    pub fn pool_usage(&self) -> (usize, usize) {
        let all = self.registry.all();
        let in_use: HashSet<&str> = all.iter().map(|sandbox| &*sandbox.pin_name).collect();
        let names = self.pooled_interfaces.iter().filter_map(|pooled| pooled.interface.pin_name());
        let used = names.filter(|pin_name| in_use.contains(pin_name.as_str())).count();
        (used, self.pooled_interfaces.len() - used)
    }

    /// The dataplane.
    #[must_use]
    pub fn dataplane(&self) -> &Arc<dyn DataplaneControl> {
        &self.dataplane
    }

    /// How long changes took until the kernel enforced them.
    #[must_use]
    pub fn timings(&self) -> &ApplyTimings {
        &self.timings
    }

    /// Executes a command in a batch with others.
    pub(super) async fn submit(&self, command: AgentCommand) -> CommandResult {
        let start = Instant::now();
        let mut reply = self.queue.push(command);
        // A caller whose command was executed in another batch returns without taking the lock. If
        // it waited for the lock, no batch would ever hold more than one command. A caller whose
        // batch held only other commands takes the lock again.
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

    /// Executes one batch, which is completed even if its callers are gone.
    async fn run_batch(&self) -> Result<(), AgentError> {
        let queue = Arc::clone(&self.queue);
        let mut reconciler = Arc::clone(&self.reconciler).lock_owned().await;
        spawn_blocking(move || queue.run_batch(&mut reconciler)).await.map_err(internal_error)
    }
}

fn internal_error(error: JoinError) -> AgentError {
    AgentError::Internal(anyhow!(error))
}
