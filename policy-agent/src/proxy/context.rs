//! Resources and settings shared by all connections of the proxy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    host_network::ProxyNetwork, intercept::Interception, pipe_pool::PipePool,
    proxy_metrics::ProxyMetrics, socks5::TlsConfigCache,
};
use crate::{
    agent::CurrentPlatformPolicy, events::EventBuffer, policy::DomainName,
    traffic_workers::TrafficWorkers,
};

/// Shared by the proxies of all sandboxes.
pub(super) struct ProxyContext {
    /// The operator's policy for all sandboxes.
    pub platform_policy: CurrentPlatformPolicy,
    /// Receives the events.
    pub event_buffer: Arc<EventBuffer>,
    /// The threads that serve connections.
    pub workers: TrafficWorkers,
    /// The metrics of all sandboxes together.
    pub metrics: ProxyMetrics,
    /// Access to DNS, routes and sockets.
    pub network: Box<dyn ProxyNetwork>,
    /// Pipes for splice(2).
    pub pipe_pool: PipePool,
    /// Cached TLS configurations for SOCKS5 proxies.
    pub tls_configs: TlsConfigCache,
    /// Connections to names with `network.rules`.
    pub interception: Interception,
    /// The name under which sandboxes ask the agent about their own policy, if it answers.
    pub info_host: Option<DomainName>,
    /// Listen addresses of the gateway.
    pub gateway_listeners: Vec<SocketAddr>,
    /// Maximum number of connections of one sandbox.
    pub max_connections_per_sandbox: usize,
    /// Maximum number of connections of all sandboxes together.
    pub max_connections: i64,
    /// The timeouts.
    pub timeouts: ProxyTimeouts,
}

impl ProxyContext {
    /// Whether the gateway listens at this address of the host.
    pub(super) fn is_gateway_address(&self, address: IpAddr, port: u16) -> bool {
        self.gateway_listeners.iter().any(|listener| {
            let any = match listener.ip() {
                IpAddr::V4(own) => own.is_unspecified() && address.is_ipv4(),
                // `[::]` covers both families, unless net.ipv6.bindv6only is set. In that case
                // connecting over IPv4 fails.
                IpAddr::V6(own) => own.is_unspecified(),
            };
            listener.port() == port && (any || listener.ip().to_canonical() == address)
        })
    }
}

/// The timeouts of the proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProxyTimeouts {
    /// Until a sandbox has sent the name that its connection requests.
    pub name_detection: Duration,
    /// Until a name is resolved.
    pub resolve: Duration,
    /// Until an address has accepted a connection.
    pub connect: Duration,
    /// Until the next address is tried in parallel to those that have not answered yet (RFC 8305,
    /// 5).
    pub attempt_delay: Duration,
    /// Until a SOCKS5 proxy has established a connection.
    pub egress_proxy: Duration,
    /// Between two requests on one connection.
    pub http_idle: Duration,
    /// How long to keep reading from a refused client, so that it can read the refusal.
    pub linger: Duration,
}

impl Default for ProxyTimeouts {
    fn default() -> Self {
        Self {
            name_detection: Duration::from_secs(10),
            // A little more than the resolver's own timeout.
            resolve: Duration::from_secs(6),
            connect: Duration::from_secs(10),
            attempt_delay: Duration::from_millis(250),
            egress_proxy: Duration::from_secs(15),
            http_idle: Duration::from_secs(600),
            linger: Duration::from_secs(1),
        }
    }
}
