//! What the proxy asks of the machine's network. A stand-in takes its place when the proxy itself is
//! tested.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
};

use tokio::net::TcpStream;

use super::{host_routes::HostRoutes, resolver::DnsResolver, socket};
use crate::policy::DomainName;

/// An answer that takes time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where an address leads to, by the host's routing tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressLocality {
    /// To another machine.
    Remote,
    /// To the host itself.
    Local,
    /// Nowhere, or to many: there is no route, or none for a connection.
    Unroutable,
}

/// The network.
pub trait ProxyNetwork: Send + Sync {
    /// Where an accepted connection was to go.
    fn original_destination(&self, client: &TcpStream) -> io::Result<SocketAddr>;

    /// The addresses of a name; none: it has none, or nobody knows.
    fn resolve<'a>(&'a self, name: &'a DomainName) -> BoxFuture<'a, Vec<IpAddr>>;

    /// Where an address leads to.
    fn locality(&self, address: IpAddr) -> BoxFuture<'_, AddressLocality>;

    /// Connects to an address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The host's own.
pub struct HostNetwork {
    resolver: DnsResolver,
    routes: HostRoutes,
}

impl HostNetwork {
    /// Asks these DNS servers; none: those of the host's resolv.conf.
    ///
    /// # Errors
    /// The resolver or the route socket cannot be set up.
    pub fn new(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        Ok(Self { resolver: DnsResolver::new(servers)?, routes: HostRoutes::new()? })
    }
}

impl ProxyNetwork for HostNetwork {
    fn original_destination(&self, client: &TcpStream) -> io::Result<SocketAddr> {
        client.local_addr()
    }

    fn resolve<'a>(&'a self, name: &'a DomainName) -> BoxFuture<'a, Vec<IpAddr>> {
        Box::pin(self.resolver.resolve(name))
    }

    fn locality(&self, address: IpAddr) -> BoxFuture<'_, AddressLocality> {
        Box::pin(self.routes.locality(address))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(socket::connect_tcp(address))
    }
}
