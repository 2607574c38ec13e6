//! Sends each sandbox with rules its authority: when it gets its first rule, and after a start of the
//! agent.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::init_request::{InitError, send_authority};
use crate::{
    agent::{EnforcementStatus, Sandbox, SandboxLifetime, SandboxRegistry},
    policy::SandboxId,
    proxy::TransparentProxy,
};

/// How long a sandbox may take until its envd answers. It may still be booting.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the first failed attempt. Each further pause is twice as long as the last.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Maximum number of attempts at the same time.
const CONCURRENT_ATTEMPTS: usize = 32;

/// Sends the authorities.
pub(crate) struct CaDelivery {
    registry: Arc<SandboxRegistry>,
    proxy: Arc<TransparentProxy>,
    /// The port of envd.
    port: u16,
    attempts: Semaphore,
}

impl CaDelivery {
    /// A delivery to this port of all sandboxes.
    pub(crate) fn new(
        registry: Arc<SandboxRegistry>,
        proxy: Arc<TransparentProxy>,
        port: u16,
    ) -> Arc<Self> {
        Arc::new(Self { registry, proxy, port, attempts: Semaphore::new(CONCURRENT_ATTEMPTS) })
    }

    /// Runs as long as the agent.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut changes = self.registry.subscribe();
        // An authority lives as long as its sandbox, and each is sent once.
        let mut begun: HashMap<SandboxId, Arc<SandboxLifetime>> = HashMap::new();
        loop {
            begun.retain(|id, lifetime| {
                self.registry.get(id).is_some_and(|it| Arc::ptr_eq(&it.lifetime, lifetime))
            });
            for sandbox in self.registry.all() {
                if has_rules(&sandbox) && !begun.contains_key(sandbox.id()) {
                    begun.insert(sandbox.id().clone(), Arc::clone(&sandbox.lifetime));
                    tokio::spawn(Arc::clone(&self).deliver(sandbox));
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends the authority of a sandbox, and logs how that ends.
    async fn deliver(self: Arc<Self>, sandbox: Arc<Sandbox>) {
        let (id, port) = (sandbox.id(), self.port);
        let delivered = tokio::select! {
            () = sandbox.lifetime.cancellation().cancelled() => return,
            delivered = self.deliver_with_retries(&sandbox) => delivered,
        };
        match delivered {
            Ok(()) => tracing::info!(sandbox = %id, port, "envd has the sandbox's CA"),
            Err(error) => tracing::warn!(
                sandbox = %id, port,
                "envd does not have the sandbox's CA, so programs there reject names with \
                 network.rules until it is installed (`policy-agent ca {id}`): {error:#}"
            ),
        }
    }

    async fn deliver_with_retries(&self, sandbox: &Sandbox) -> Result<()> {
        let (proxy, id) = (Arc::clone(&self.proxy), sandbox.id().clone());
        let authority = spawn_blocking(move || proxy.sandbox_ca_pem(&id)).await??;
        // The time for a permit does not count: other sandboxes may make it long.
        let (mut spent, mut delay) = (Duration::ZERO, FIRST_RETRY_DELAY);
        loop {
            let permit = self.attempts.acquire().await;
            let begin = Instant::now();
            let error = match self.attempt(sandbox, &authority).await {
                Ok(()) => return Ok(()),
                Err(InitError::Refused(status)) => bail!("POST /init: answered with {status}"),
                Err(InitError::Unreachable(error)) => error,
            };
            drop(permit);
            spent += begin.elapsed() + delay;
            if spent >= DELIVERY_TIMEOUT {
                let seconds = DELIVERY_TIMEOUT.as_secs();
                return Err(error).with_context(|| format!("no answer within {seconds} s"));
            }
            sleep(delay).await;
            delay = (2 * delay).min(MAX_RETRY_DELAY);
        }
    }

    async fn attempt(&self, sandbox: &Sandbox, authority: &str) -> Result<(), InitError> {
        // Its interface or its addresses may have changed meanwhile.
        let current = self.registry.get(sandbox.id());
        let spec = &current.as_deref().unwrap_or(sandbox).base_spec;
        let sending = send_authority(spec, self.port, authority);
        let sent = timeout(ATTEMPT_TIMEOUT, sending).await;
        sent.unwrap_or_else(|elapsed| Err(InitError::Unreachable(elapsed.into())))
    }
}

/// Whether a sandbox needs its authority, and can be reached.
fn has_rules(sandbox: &Sandbox) -> bool {
    sandbox.status == EnforcementStatus::Enforcing
        && !sandbox.active_policy.policy.header_rules().is_empty()
}
