//! What all connections are served with.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{counts::Counts, network::Network, pipe::Pool, tunnel::Authorities};
use crate::{agent::Law, events::Hub};

/// What the proxy has, for all doors.
pub struct Means {
    /// What the operator decides for all sandboxes.
    pub law: Arc<Law>,
    /// Where events go.
    pub hub: Arc<Hub>,
    /// What is counted.
    pub counts: Counts,
    /// The way out.
    pub network: Box<dyn Network>,
    /// Pipes for what is on its way.
    pub pipes: Pool,
    /// Who is trusted to name a SOCKS5 proxy.
    pub authorities: Authorities,
    /// Where the gateway listens.
    pub gateway: Vec<SocketAddr>,
    /// Connections that a sandbox may have.
    pub limit: usize,
    /// Connections that all of them may have together.
    pub most: i64,
    /// How long things may take.
    pub patience: Patience,
}

impl Means {
    /// Whether the gateway is what answers at an address of the host.
    pub fn serves(&self, address: IpAddr, port: u16) -> bool {
        self.gateway.iter().any(|listener| {
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
pub struct Patience {
    /// Until a sandbox has said what its connection asks for.
    pub ask: Duration,
    /// Until a name is resolved.
    pub resolve: Duration,
    /// Until an address has accepted a connection.
    pub connect: Duration,
    /// Until the next address is tried beside those that have not answered yet (RFC 8305, 5).
    pub stagger: Duration,
    /// Until a SOCKS5 proxy has made a connection.
    pub tunnel: Duration,
    /// Between two requests on one connection.
    pub idle: Duration,
    /// What a client still sends after it was refused is read for so long, so that it gets to read
    /// the refusal.
    pub linger: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            ask: Duration::from_secs(10),
            // A little more than the resolver waits for an answer.
            resolve: Duration::from_secs(6),
            connect: Duration::from_secs(10),
            stagger: Duration::from_millis(250),
            tunnel: Duration::from_secs(15),
            idle: Duration::from_secs(600),
            linger: Duration::from_secs(1),
        }
    }
}
