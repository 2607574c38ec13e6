//! The gateway: every sandbox's services at `<port>-<sandbox ID>.<domain>`, open to everybody or to
//! whoever shows the sandbox's traffic token.
//!
//! ```text
//! listen (TLS, HTTP/1 or 2) ─► connection (strict ◄─ framing) ─► visit ─► backend ─► dial ─► service
//!   └ proxy_protocol    trusted_proxies, target, envd, token, cors,   ┘├ pool
//!                       navigation, prepare, forwarded, answer          └ upgrade
//! ```
//!
//! It asks the agent's table who a sandbox is, at every request, and changes nothing there.

mod backend;
mod backend_registry;
mod backend_request;
mod backend_response;
mod client_listener;
mod connection_pool;
mod cors;
mod dialer;
mod envd;
mod flow_control;
mod forwarded_headers;
mod framing_guard;
#[cfg(test)]
mod fuzz;
mod gateway_metrics;
mod head_fault;
mod http_server;
mod proxy_protocol;
mod refusal;
mod request;
mod request_framer;
mod request_line;
mod response_body;
mod server_certificate;
mod target;
mod token_redirect;
mod traffic_token;
mod trusted_proxies;
mod upgrade;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use rustls::ClientConfig;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_rustls::TlsAcceptor;

use self::{
    backend_registry::BackendRegistry, server_certificate::ServerCertificate,
    trusted_proxies::TrustedProxies,
};
pub use self::{gateway_metrics::GatewayMetrics, server_certificate::CertificateFiles};
use crate::{agent::SandboxRegistry, limits::DescriptorBudget};

/// `[gateway]` of the configuration.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The domain below which sandboxes have their names.
    pub domain: String,
    /// Where plain HTTP is served.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served, and its certificate.
    pub https: Option<(SocketAddr, CertificateFiles)>,
    /// Connections that one sandbox may have through the gateway at a time.
    pub max_connections_per_sandbox: usize,
    /// Where the daemon of E2B's SDKs listens in a sandbox; 0: nowhere.
    pub envd_port: u16,
    /// Proxies whose word about a client counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections of theirs begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// The gateway.
pub struct Gateway {
    domain: String,
    sandboxes: Arc<SandboxRegistry>,
    backends: BackendRegistry,
    metrics: GatewayMetrics,
    envd_port: u16,
    trusted_proxies: TrustedProxies,
    proxy_protocol: bool,
    backend_tls: Arc<ClientConfig>,
    connection_permits: Arc<Semaphore>,
}

impl Gateway {
    /// Listens, and serves in the background from then on.
    ///
    /// # Errors
    /// An address cannot be listened on, or the certificate cannot be read.
    pub async fn start(
        settings: &GatewaySettings,
        sandboxes: Arc<SandboxRegistry>,
        metrics: GatewayMetrics,
    ) -> Result<()> {
        let descriptors = DescriptorBudget::for_process(true)?;
        let gateway = Arc::new(Self {
            domain: settings.domain.clone(),
            sandboxes,
            backends: BackendRegistry::new(
                settings.max_connections_per_sandbox,
                descriptors.gateway_backends,
            ),
            metrics,
            envd_port: settings.envd_port,
            trusted_proxies: TrustedProxies::new(settings.trusted_proxies.clone()),
            proxy_protocol: settings.proxy_protocol,
            backend_tls: dialer::unverified_tls_config()?,
            connection_permits: client_listener::connection_permits(descriptors.gateway_clients),
        });
        if let Some(address) = settings.http {
            let listener = bind_listener("http", address).await?;
            tokio::spawn(client_listener::serve_listener(Arc::clone(&gateway), listener, None));
        }
        if let Some((address, files)) = &settings.https {
            let certificate = Arc::new(ServerCertificate::load(files.clone())?);
            let tls = TlsAcceptor::from(Arc::new(certificate.server_config()?));
            tokio::spawn(certificate.reload_on_change());
            let listener = bind_listener("https", *address).await?;
            tokio::spawn(client_listener::serve_listener(
                Arc::clone(&gateway),
                listener,
                Some(tls),
            ));
        }
        tokio::spawn(Arc::clone(gateway.backends.pool()).run_eviction());
        tokio::spawn(gateway.retire_stale_backends());
        Ok(())
    }

    /// Ends connections that a change of a sandbox leaves without a right to be, for ever.
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
