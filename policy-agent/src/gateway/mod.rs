//! The gateway: serves the ports of every sandbox at `<port>-<sandbox ID>.<domain>`, either
//! publicly or to clients that present the sandbox's traffic token.
//!
//! ```text
//! client_listener (TLS, HTTP/1 or 2) ─► http_server ─► request ─► forwarding ─► backend ─► service
//!   └ proxy_protocol                     │              │           │            ├ connection_pool
//!                                        │              │           │            └ http2_pool, service_protocol
//!                                        │              │           └ backend_request, forwarded_headers,
//!       framing_guard ◄─ request_framer ─┘              │             backend_response, upgrade, websocket, tcp_tunnel
//!                                                       └ trusted_proxies, target, envd, access_log,
//!                                                         access_check: traffic_token, cors, token_redirect
//! ```
//!
//! `drain` ends the connections when the agent stops. The gateway looks up the sandbox in the
//! agent's registry on every request and never modifies the registry.

mod access_check;
mod access_log;
mod backend;
mod backend_http2;
mod backend_registry;
mod backend_request;
mod backend_response;
mod backend_tls;
mod certificate_store;
mod client_connections;
mod client_listener;
mod connection_pool;
mod cors;
mod domains;
mod drain;
mod envd;
mod flow_control;
mod forwarded_headers;
mod forwarding;
mod framing_guard;
#[cfg(test)]
mod fuzz;
mod gateway_metrics;
mod head_fault;
mod http2_pool;
mod http2_request;
mod http_server;
mod proxy_protocol;
mod refusal;
mod request;
mod request_body;
mod request_framer;
mod request_length;
mod request_line;
mod response_body;
mod sandbox_requests;
mod server_certificate;
mod service_protocol;
mod target;
mod tcp_tunnel;
mod token_redirect;
mod traffic_token;
mod trusted_proxies;
mod upgrade;
mod websocket;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

use self::{
    backend_registry::BackendRegistry, backend_tls::BackendTls,
    certificate_store::CertificateStore, client_connections::ClientConnections,
    domains::GatewayDomains, drain::ConnectionDrain, trusted_proxies::TrustedProxies,
};
pub use self::{
    certificate_store::CertificateSources, gateway_metrics::GatewayMetrics,
    server_certificate::CertificateFiles,
};
use crate::{
    agent::{Sandbox, SandboxRegistry},
    limits::DescriptorBudget,
    traffic_workers::TrafficWorkers,
};

/// How long a refused connection is retried at least.
const RESTART_WINDOW: Duration = Duration::from_secs(1);

/// `[gateway]` of the configuration.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The parent domains of all sandbox hosts.
    pub domains: Vec<String>,
    /// Listen address for plain HTTP.
    pub http: Option<SocketAddr>,
    /// Listen address for HTTPS, and its certificates.
    pub https: Option<(SocketAddr, CertificateSources)>,
    /// Maximum number of concurrent gateway connections to one sandbox.
    pub max_connections_per_sandbox: usize,
    /// Maximum number of connections of one client. 0: any number.
    pub max_connections_per_client: usize,
    /// The port of the E2B SDKs' daemon in a sandbox. 0 means none.
    pub envd_port: u16,
    /// Ports whose services speak HTTP/2 only.
    pub http2_ports: Vec<u16>,
    /// Whether CONNECT opens tunnels to clients with a token.
    pub tcp_tunnels: bool,
    /// How long after its creation a sandbox may need until its services listen.
    pub start_timeout: Duration,
    /// How long requests in progress may take when the agent stops.
    pub drain_timeout: Duration,
    /// Proxies whose information about a client is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from trusted proxies start with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// The gateway.
pub struct Gateway {
    domains: GatewayDomains,
    sandboxes: Arc<SandboxRegistry>,
    backends: BackendRegistry,
    metrics: GatewayMetrics,
    envd_port: u16,
    http2_ports: Vec<u16>,
    allows_tunnels: bool,
    start_timeout: Duration,
    trusted_proxies: TrustedProxies,
    proxy_protocol: bool,
    backend_tls: BackendTls,
    connection_permits: Arc<Semaphore>,
    client_connections: Arc<ClientConnections>,
    drain: ConnectionDrain,
    workers: TrafficWorkers,
}

impl Gateway {
    /// Binds the listeners, and lets the workers serve their connections in the background.
    ///
    /// # Errors
    /// An address cannot be bound, or the certificate cannot be read.
    pub async fn start(
        settings: &GatewaySettings,
        sandboxes: Arc<SandboxRegistry>,
        metrics: GatewayMetrics,
        workers: TrafficWorkers,
    ) -> Result<Arc<Self>> {
        let descriptors = DescriptorBudget::for_process(true)?;
        let gateway = Arc::new(Self {
            domains: GatewayDomains::new(settings.domains.clone()),
            sandboxes,
            backends: BackendRegistry::new(
                settings.max_connections_per_sandbox,
                descriptors.gateway_backends,
            ),
            metrics,
            envd_port: settings.envd_port,
            http2_ports: settings.http2_ports.clone(),
            allows_tunnels: settings.tcp_tunnels,
            start_timeout: settings.start_timeout,
            trusted_proxies: TrustedProxies::new(settings.trusted_proxies.clone()),
            proxy_protocol: settings.proxy_protocol,
            backend_tls: backend_tls::unverified_tls_config()?,
            connection_permits: client_listener::connection_permits(descriptors.gateway_clients),
            client_connections: ClientConnections::new(settings.max_connections_per_client),
            drain: ConnectionDrain::default(),
            workers,
        });
        if let Some(address) = settings.http {
            let listener = bind_listener("http", address).await?;
            tokio::spawn(client_listener::serve_listener(Arc::clone(&gateway), listener, None));
        }
        if let Some((address, sources)) = &settings.https {
            let (certificates, reloader) = CertificateStore::load(sources.clone())?;
            let tls = TlsAcceptor::from(Arc::new(certificates.server_config()?));
            tokio::spawn(reloader.run());
            let listener = bind_listener("https", *address).await?;
            tokio::spawn(client_listener::serve_listener(
                Arc::clone(&gateway),
                listener,
                Some(tls),
            ));
        }
        tokio::spawn(Arc::clone(gateway.backends.pool()).run_eviction());
        tokio::spawn(Arc::clone(&gateway).retire_stale_backends());
        Ok(gateway)
    }

    /// How long to wait for a service of a sandbox to listen: a moment, since it may just be
    /// starting again, and longer in a sandbox that is starting itself.
    fn start_window(&self, sandbox: &Sandbox) -> Duration {
        let age = Timestamp::now().duration_since(sandbox.lifetime.started_at());
        let age = Duration::try_from(age).unwrap_or_default();
        self.start_timeout.saturating_sub(age).max(RESTART_WINDOW)
    }

    /// Waits until the agent stops. From then on the gateway accepts no connections, and closes
    /// those without a request. Requests in progress may take up to `limit`.
    pub async fn drain_when_stopping(
        self: Arc<Self>,
        stopping: watch::Receiver<bool>,
        limit: Duration,
    ) {
        self.drain.run(stopping, limit).await;
    }

    /// Retires backends that a change of their sandbox has invalidated. Runs without end.
    async fn retire_stale_backends(self: Arc<Self>) {
        let mut changes = self.sandboxes.subscribe();
        while changes.changed().await.is_ok() {
            self.backends.retire_stale(&self.sandboxes);
        }
    }
}

async fn bind_listener(key: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("gateway.{key}: cannot listen on {address}"))
}
