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

mod answer;
mod backend;
mod backends;
mod body;
mod certificate;
mod connection;
mod cors;
mod counts;
mod dial;
mod envd;
mod fault;
mod flow;
mod forwarded;
mod framing;
#[cfg(test)]
mod fuzz;
mod listen;
mod navigation;
mod pool;
mod prepare;
mod proxy_protocol;
mod refusal;
mod request_line;
mod strict;
mod target;
mod token;
mod trusted_proxies;
mod upgrade;
mod visit;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use rustls::ClientConfig;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_rustls::TlsAcceptor;

use self::{backends::Backends, certificate::Certificate, trusted_proxies::TrustedProxies};
pub use self::{certificate::Files, counts::Counts};
use crate::{agent::Table, limits::Descriptors};

/// `[gateway]` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The domain below which sandboxes have their names.
    pub domain: String,
    /// Where plain HTTP is served.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served, and its certificate.
    pub https: Option<(SocketAddr, Files)>,
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
    table: Arc<Table>,
    backends: Backends,
    counts: Counts,
    envd_port: u16,
    proxies: TrustedProxies,
    proxy_protocol: bool,
    tls: Arc<ClientConfig>,
    places: Arc<Semaphore>,
}

impl Gateway {
    /// Listens, and serves in the background from then on.
    ///
    /// # Errors
    /// An address cannot be listened on, or the certificate cannot be read.
    pub async fn start(settings: &Settings, table: Arc<Table>, counts: Counts) -> Result<()> {
        let descriptors = Descriptors::of_process(true)?;
        let gateway = Arc::new(Self {
            domain: settings.domain.clone(),
            table,
            backends: Backends::new(settings.max_connections_per_sandbox, descriptors.services),
            counts,
            envd_port: settings.envd_port,
            proxies: TrustedProxies::new(settings.trusted_proxies.clone()),
            proxy_protocol: settings.proxy_protocol,
            tls: dial::tls()?,
            places: listen::places(descriptors.visitors),
        });
        if let Some(address) = settings.http {
            let listener = bind("http", address).await?;
            tokio::spawn(listen::serve(Arc::clone(&gateway), listener, None));
        }
        if let Some((address, files)) = &settings.https {
            let certificate = Arc::new(Certificate::read(files.clone())?);
            let tls = TlsAcceptor::from(Arc::new(certificate.tls()?));
            tokio::spawn(certificate.follow());
            let listener = bind("https", *address).await?;
            tokio::spawn(listen::serve(Arc::clone(&gateway), listener, Some(tls)));
        }
        tokio::spawn(Arc::clone(gateway.backends.pool()).sweep());
        tokio::spawn(gateway.follow_changes());
        Ok(())
    }

    /// Ends connections that a change of a sandbox leaves without a right to be, for ever.
    async fn follow_changes(self: Arc<Self>) {
        let mut changes = self.table.changes();
        while changes.changed().await.is_ok() {
            self.backends.review(&self.table);
        }
    }
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("gateway.{key}: cannot listen on {address}"))
}
