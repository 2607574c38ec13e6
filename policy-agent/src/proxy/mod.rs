//! The egress proxy: it accepts the connections that the kernel redirects to it, decides on them by
//! the name they request, and relays those it allows.
//!
//! ```text
//! sandbox_proxy (accept) ─► serve_connection ─► client_hello, http ─► admitted (decide)
//!   ─► dial (resolve, check floor, connect) ─► splice
//!   └► socks5 (egressProxy) ─────────────────► splice, or relay through TLS
//! ```
//!
//! A `SandboxProxy` tracks its connections from the moment they are accepted, so that a policy
//! update or its closing reaches each of them at once.

mod address_lookup;
mod admitted;
mod client_hello;
mod closing;
mod context;
mod decision;
mod decision_limiter;
mod dial;
mod dns_cache;
mod host_network;
mod host_routes;
mod http;
mod intercept;
mod lookup_limiter;
mod pipe_pool;
mod proxy_metrics;
mod resolver;
mod sandbox_info;
mod sandbox_proxy;
mod serve_connection;
mod sni;
mod socks5;
mod splice;
mod tls_alert;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, bail};
use tokio::net::TcpListener;

pub use self::{
    address_lookup::ResolvedAddress, intercept::OriginRoots, proxy_metrics::ProxyMetrics,
};
use self::{
    context::{ProxyContext, ProxyTimeouts},
    host_network::{HostNetwork, ProxyNetwork},
    intercept::Interception,
    lookup_limiter::LookupLimiter,
    pipe_pool::PipePool,
    sandbox_proxy::SandboxProxy,
    socks5::TlsConfigCache,
};
use crate::net::{socket, upstream};
use crate::{
    agent::{ActivePolicy, CurrentPlatformPolicy, ProxyControl, SandboxProxyCounters},
    dataplane::{self, Slot},
    events::EventBuffer,
    limits::DescriptorBudget,
    policy::{DomainName, SandboxId},
    secrets::SecretStore,
    traffic_workers::TrafficWorkers,
};

/// `[proxy]` of the configuration.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// DNS servers that resolve allowed names. If empty, those of the host's resolv.conf are used.
    pub resolvers: Vec<SocketAddr>,
    /// Maximum number of concurrent proxy connections of one sandbox.
    pub max_connections_per_sandbox: u32,
    /// Listen addresses of the agent's own gateway. Names may resolve to them although they belong
    /// to the host.
    pub gateway_listeners: Vec<SocketAddr>,
    /// Whether a gateway shares the file descriptors of this process.
    pub with_gateway: bool,
    /// The name under which sandboxes ask about their own policy. `None`: nothing answers.
    pub info_host: Option<DomainName>,
    /// The directory that keeps the authorities of sandboxes with `network.rules`.
    pub state_dir: PathBuf,
    /// Certificates that are trusted besides the system's, for servers of names with rules.
    pub extra_roots: Option<PathBuf>,
    /// The values of secrets in rules.
    pub secrets: SecretStore,
}

/// The egress proxy of all sandboxes.
pub struct TransparentProxy {
    context: Arc<ProxyContext>,
    /// For lookups that the API requests.
    lookup_limiter: LookupLimiter,
    sandboxes: Mutex<HashMap<Slot, Arc<SandboxProxy>>>,
}

impl TransparentProxy {
    /// Creates a proxy without listeners. The workers serve its connections.
    ///
    /// # Errors
    /// Its resolver or its route socket cannot be set up.
    pub fn new(
        settings: ProxySettings,
        platform_policy: CurrentPlatformPolicy,
        event_buffer: Arc<EventBuffer>,
        workers: TrafficWorkers,
    ) -> Result<Self> {
        let _runtime = workers.next_runtime().enter();
        let network = Box::new(HostNetwork::new(&settings.resolvers)?);
        Self::with_network(
            network,
            ProxyTimeouts::default(),
            settings,
            platform_policy,
            event_buffer,
            workers.clone(),
        )
    }

    fn with_network(
        network: Box<dyn ProxyNetwork>,
        timeouts: ProxyTimeouts,
        settings: ProxySettings,
        platform_policy: CurrentPlatformPolicy,
        event_buffer: Arc<EventBuffer>,
        workers: TrafficWorkers,
    ) -> Result<Self> {
        let interception = Interception::new(
            &settings.state_dir,
            settings.extra_roots.as_ref(),
            settings.secrets,
        )?;
        let context = ProxyContext {
            interception,
            info_host: settings.info_host,
            platform_policy,
            event_buffer,
            workers,
            metrics: ProxyMetrics::default(),
            network,
            pipe_pool: PipePool::default(),
            tls_configs: TlsConfigCache::default(),
            gateway_listeners: settings.gateway_listeners,
            max_connections_per_sandbox: usize::try_from(settings.max_connections_per_sandbox)?,
            max_connections: max_connections(settings.with_gateway)?,
            timeouts,
        };
        Ok(Self {
            context: Arc::new(context),
            lookup_limiter: LookupLimiter::default(),
            sandboxes: Mutex::default(),
        })
    }

    /// The certificate of a sandbox's authority (PEM). Makes the authority if it has none. Blocks.
    ///
    /// # Errors
    /// The authority can neither be read nor written.
    pub fn sandbox_ca_pem(&self, sandbox: &SandboxId) -> Result<String> {
        let ca = self.context.interception.ca_store.load_or_make(sandbox)?;
        Ok(ca.certificate_pem().to_owned())
    }

    /// Replaces the roots that servers of names with rules are verified against.
    pub fn replace_origin_roots(&self, roots: OriginRoots) {
        self.context.interception.origin_roots.replace(roots);
    }

    /// The metrics. Clones share the same counters.
    #[must_use]
    pub fn metrics(&self) -> &ProxyMetrics {
        &self.context.metrics
    }

    fn lock_sandboxes(&self) -> MutexGuard<'_, HashMap<Slot, Arc<SandboxProxy>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox_proxy(&self, slot: Slot) -> Option<Arc<SandboxProxy>> {
        self.lock_sandboxes().get(&slot).cloned()
    }
}

/// File descriptors that every connection holds: one per side.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// Maximum number of connections of all sandboxes together.
fn max_connections(with_gateway: bool) -> Result<i64> {
    let descriptors = DescriptorBudget::for_process(with_gateway)?.proxy_connections;
    Ok(i64::try_from(descriptors / DESCRIPTORS_PER_CONNECTION).unwrap_or(i64::MAX).max(1))
}

impl ProxyControl for TransparentProxy {
    fn open_listeners(
        &self,
        slot: Slot,
        sandbox: &SandboxId,
        proxy_counters: &Arc<SandboxProxyCounters>,
        active_policy: &Arc<ActivePolicy>,
        redirect_listeners: dataplane::RedirectListeners,
    ) -> Result<()> {
        let _runtime = self.context.workers.next_runtime().enter();
        let mut listeners = Vec::new();
        for listener in [redirect_listeners.v4, redirect_listeners.v6].into_iter().flatten() {
            socket::configure_listener(&listener)?;
            listeners.push(TcpListener::from_std(listener)?);
        }
        let mut sandboxes = self.lock_sandboxes();
        if sandboxes.contains_key(&slot) {
            bail!("slot {} has listeners already", slot.get());
        }
        let sandbox_proxy = SandboxProxy::new(
            Arc::clone(&self.context),
            sandbox.clone(),
            Arc::clone(proxy_counters),
            Arc::clone(active_policy),
        );
        let sandbox_proxy = Arc::new(sandbox_proxy);
        for listener in listeners {
            sandbox_proxy.spawn_accept_loop(listener);
        }
        sandbox_proxy.prepare_interception();
        sandboxes.insert(slot, sandbox_proxy);
        Ok(())
    }

    fn has_listeners(&self, slot: Slot) -> bool {
        self.lock_sandboxes().contains_key(&slot)
    }

    fn update_policy(&self, slot: Slot, active_policy: &Arc<ActivePolicy>) {
        if let Some(sandbox_proxy) = self.sandbox_proxy(slot) {
            sandbox_proxy.update_policy(active_policy);
            sandbox_proxy.prepare_interception();
        }
    }

    fn close_listeners(&self, slot: Slot) {
        let sandbox_proxy = self.lock_sandboxes().remove(&slot);
        if let Some(sandbox_proxy) = sandbox_proxy {
            sandbox_proxy.close();
        }
    }

    fn active_connections(&self, slot: Slot) -> usize {
        self.sandbox_proxy(slot).map_or(0, |sandbox_proxy| sandbox_proxy.active_connections())
    }
}
