//! The network operations of the proxy, as a trait. Tests of the proxy replace it with a fake.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
};

use tokio::net::TcpStream;

use super::{
    host_routes::HostRoutes, lookup_limiter::LookupLimiter, resolver::DnsResolver, socket,
};
use crate::policy::DomainName;

/// A boxed future.
pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where an address leads according to the host's routing tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressLocality {
    /// To another machine.
    Remote,
    /// To the host itself.
    Local,
    /// There is no route, or none for a unicast connection.
    Unroutable,
}

/// The network as the proxy uses it.
pub(super) trait ProxyNetwork: Send + Sync {
    /// The original destination of an accepted connection.
    fn original_destination(&self, client: &TcpStream) -> io::Result<SocketAddr>;

    /// The address that a connection was made to. An error if it has ended.
    fn dialed_address(&self, upstream: &TcpStream) -> io::Result<IpAddr> {
        upstream.peer_addr().map(|address| address.ip().to_canonical())
    }

    /// The addresses of a name. Empty if it has none or does not resolve.
    fn resolve<'a>(
        &'a self,
        name: &'a DomainName,
        lookup_limiter: &'a LookupLimiter,
    ) -> BoxFuture<'a, Vec<IpAddr>>;

    /// Where an address leads.
    fn locality(&self, address: IpAddr) -> BoxFuture<'_, AddressLocality>;

    /// Connects to an address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The host's network.
pub(super) struct HostNetwork {
    resolver: DnsResolver,
    routes: HostRoutes,
}

impl HostNetwork {
    /// Uses these DNS servers, or those of the host's resolv.conf if there are none.
    ///
    /// # Errors
    /// The resolver or the route socket cannot be set up.
    pub(super) fn new(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        Ok(Self { resolver: DnsResolver::new(servers)?, routes: HostRoutes::new()? })
    }
}

impl ProxyNetwork for HostNetwork {
    fn original_destination(&self, client: &TcpStream) -> io::Result<SocketAddr> {
        client.local_addr()
    }

    fn resolve<'a>(
        &'a self,
        name: &'a DomainName,
        lookup_limiter: &'a LookupLimiter,
    ) -> BoxFuture<'a, Vec<IpAddr>> {
        Box::pin(self.resolver.resolve(name, lookup_limiter))
    }

    fn locality(&self, address: IpAddr) -> BoxFuture<'_, AddressLocality> {
        Box::pin(self.routes.locality(address))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(socket::connect_tcp(address))
    }
}
