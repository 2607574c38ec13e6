//! The egress proxy: decides about connections that the kernel hands over, by the name that they
//! ask for, and carries those that it lets out.
//!
//! ```text
//! door (accept) ─► connection ─► tls, http ─► claim (judge) ─► dial (resolve, floor) ─► splice
//!                                                              └► tunnel (SOCKS5) ────► splice
//! ```
//!
//! A door knows its connections from when they are accepted, so that new rules, or its end, reach
//! each of them at once.

mod address_lookup;
mod admitted;
mod client_hello;
mod context;
mod decision;
mod decision_limiter;
mod dial;
mod dns_cache;
mod host_network;
mod host_routes;
mod http;
mod pipe_pool;
mod proxy_metrics;
mod resolver;
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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use tokio::{net::TcpListener, runtime::Handle};

pub use self::{address_lookup::ResolvedAddress, proxy_metrics::ProxyMetrics};
use self::{
    context::{ProxyContext, ProxyTimeouts},
    host_network::{HostNetwork, ProxyNetwork},
    pipe_pool::PipePool,
    sandbox_proxy::SandboxProxy,
    socks5::TlsConfigCache,
};
use crate::net::{socket, upstream};
use crate::{
    agent::{ActivePolicy, PlatformPolicy, ProxyControl, SandboxProxyCounters},
    dataplane::{self, Slot},
    events::EventBuffer,
    limits::DescriptorBudget,
    policy::SandboxId,
};

/// `[proxy]` of the configuration.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// DNS servers that resolve allowed names; none: those of the host's resolv.conf.
    pub resolvers: Vec<SocketAddr>,
    /// Connections that one sandbox may have through the proxy at a time.
    pub max_connections_per_sandbox: u32,
    /// Where the agent's own gateway listens: names may lead there, though it is the host itself.
    pub gateway_listeners: Vec<SocketAddr>,
    /// Whether a gateway shares the process's file descriptors.
    pub with_gateway: bool,
}

/// The egress proxy.
pub struct TransparentProxy {
    context: Arc<ProxyContext>,
    runtime: Handle,
    sandboxes: Mutex<HashMap<Slot, Arc<SandboxProxy>>>,
}

impl TransparentProxy {
    /// A proxy without doors. Connections are served on the current runtime.
    ///
    /// # Errors
    /// Its resolver or its route socket cannot be set up.
    pub fn new(
        settings: ProxySettings,
        platform_policy: Arc<PlatformPolicy>,
        event_buffer: Arc<EventBuffer>,
    ) -> Result<Self> {
        let network = Box::new(HostNetwork::new(&settings.resolvers)?);
        Self::with_network(
            network,
            ProxyTimeouts::default(),
            settings,
            platform_policy,
            event_buffer,
        )
    }

    fn with_network(
        network: Box<dyn ProxyNetwork>,
        timeouts: ProxyTimeouts,
        settings: ProxySettings,
        platform_policy: Arc<PlatformPolicy>,
        event_buffer: Arc<EventBuffer>,
    ) -> Result<Self> {
        let context = ProxyContext {
            platform_policy,
            event_buffer,
            metrics: ProxyMetrics::default(),
            network,
            pipe_pool: PipePool::default(),
            tls_configs: TlsConfigCache::default(),
            gateway_listeners: settings.gateway_listeners,
            max_connections_per_sandbox: usize::try_from(settings.max_connections_per_sandbox)?,
            max_connections: max_connections(settings.with_gateway)?,
            timeouts,
        };
        let runtime = Handle::try_current().context("outside of a runtime")?;
        Ok(Self { context: Arc::new(context), runtime, sandboxes: Mutex::default() })
    }

    /// What it counts: clones of it go on counting the same.
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

/// File descriptors that a connection always has: its two sides.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// How many connections all sandboxes may have together.
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
        let _runtime = self.runtime.enter();
        let mut listeners = Vec::new();
        for listener in [redirect_listeners.v4, redirect_listeners.v6].into_iter().flatten() {
            socket::configure_listener(&listener)?;
            listeners.push(TcpListener::from_std(listener)?);
        }
        let mut sandboxes = self.lock_sandboxes();
        if sandboxes.contains_key(&slot) {
            bail!("slot {} has a door already", slot.get());
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
        sandboxes.insert(slot, sandbox_proxy);
        Ok(())
    }

    fn has_listeners(&self, slot: Slot) -> bool {
        self.lock_sandboxes().contains_key(&slot)
    }

    fn update_policy(&self, slot: Slot, active_policy: &Arc<ActivePolicy>) {
        if let Some(sandbox_proxy) = self.sandbox_proxy(slot) {
            sandbox_proxy.update_policy(active_policy);
        }
    }

    fn close_listeners(&self, slot: Slot) {
        let sandbox_proxy = self.lock_sandboxes().remove(&slot);
        if let Some(sandbox_proxy) = sandbox_proxy {
            sandbox_proxy.close();
        }
    }

    fn active_connections(&self, slot: Slot) -> usize {
        self.sandbox_proxy(slot).map_or(0, |door| door.active_connections())
    }
}
