//! What all connections are served with.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    host_network::ProxyNetwork, pipe_pool::PipePool, proxy_metrics::ProxyMetrics,
    socks5::TlsConfigCache,
};
use crate::{agent::PlatformPolicy, events::EventBuffer};

/// What the proxy has, for all doors.
pub struct ProxyContext {
    /// What the operator decides for all sandboxes.
    pub platform_policy: Arc<PlatformPolicy>,
    /// Where events go.
    pub event_buffer: Arc<EventBuffer>,
    /// What is counted.
    pub metrics: ProxyMetrics,
    /// The way out.
    pub network: Box<dyn ProxyNetwork>,
    /// Pipes for what is on its way.
    pub pipe_pool: PipePool,
    /// Who is trusted to name a SOCKS5 proxy.
    pub tls_configs: TlsConfigCache,
    /// Where the gateway listens.
    pub gateway_listeners: Vec<SocketAddr>,
    /// Connections that a sandbox may have.
    pub max_connections_per_sandbox: usize,
    /// Connections that all of them may have together.
    pub max_connections: i64,
    /// How long things may take.
    pub timeouts: ProxyTimeouts,
}

impl ProxyContext {
    /// Whether the gateway is what answers at an address of the host.
    pub fn is_gateway_address(&self, address: IpAddr, port: u16) -> bool {
        self.gateway_listeners.iter().any(|listener| {
            let any = match listener.ip() {
                IpAddr::V4(own) => own.is_unspecified() && address.is_ipv4(),
                // Of both families, unless the host says otherwise: then nobody answers.
                IpAddr::V6(own) => own.is_unspecified(),
            };
            listener.port() == port && (any || listener.ip().to_canonical() == address)
        })
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct ProxyTimeouts {
    /// Until a sandbox has said what its connection asks for.
    pub name_detection: Duration,
    /// Until a name is resolved.
    pub resolve: Duration,
    /// Until an address has accepted a connection.
    pub connect: Duration,
    /// Until the next address is tried beside those that have not answered yet (RFC 8305, 5).
    pub attempt_delay: Duration,
    /// Until a SOCKS5 proxy has made a connection.
    pub egress_proxy: Duration,
    /// Between two requests on one connection.
    pub http_idle: Duration,
    /// What a client still sends after it was refused is read for so long, so that it gets to read
    /// the refusal.
    pub linger: Duration,
}

impl Default for ProxyTimeouts {
    fn default() -> Self {
        Self {
            name_detection: Duration::from_secs(10),
            // A little more than the resolver waits for an answer.
            resolve: Duration::from_secs(6),
            connect: Duration::from_secs(10),
            attempt_delay: Duration::from_millis(250),
            egress_proxy: Duration::from_secs(15),
            http_idle: Duration::from_secs(600),
            linger: Duration::from_secs(1),
        }
    }
}
