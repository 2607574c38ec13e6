//! What the proxy asks of the machine's network. A stand-in takes its place when the proxy itself is
//! tested.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
};

use tokio::net::TcpStream;

use super::{resolve::Resolver, route::Routes, socket};
use crate::policy::Name;

/// An answer that takes time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where an address leads to, by the host's routing tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To another machine.
    Elsewhere,
    /// To the host itself.
    Host,
    /// Nowhere, or to many: there is no route, or none for a connection.
    Nowhere,
}

/// The network.
pub trait Network: Send + Sync {
    /// Where an accepted connection was to go.
    fn destination(&self, client: &TcpStream) -> io::Result<SocketAddr>;

    /// The addresses of a name; none: it has none, or nobody knows.
    fn resolve<'a>(&'a self, name: &'a Name) -> Later<'a, Vec<IpAddr>>;

    /// Where an address leads to.
    fn place(&self, address: IpAddr) -> Later<'_, Place>;

    /// Connects to an address.
    fn connect(&self, address: SocketAddr) -> Later<'_, io::Result<TcpStream>>;
}

/// The host's own.
pub struct Host {
    resolver: Resolver,
    routes: Routes,
}

impl Host {
    /// Asks these DNS servers; none: those of the host's resolv.conf.
    ///
    /// # Errors
    /// The resolver or the route socket cannot be set up.
    pub fn new(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        Ok(Self { resolver: Resolver::new(servers)?, routes: Routes::new()? })
    }
}

impl Network for Host {
    fn destination(&self, client: &TcpStream) -> io::Result<SocketAddr> {
        client.local_addr()
    }

    fn resolve<'a>(&'a self, name: &'a Name) -> Later<'a, Vec<IpAddr>> {
        Box::pin(self.resolver.addresses(name))
    }

    fn place(&self, address: IpAddr) -> Later<'_, Place> {
        Box::pin(self.routes.place(address))
    }

    fn connect(&self, address: SocketAddr) -> Later<'_, io::Result<TcpStream>> {
        Box::pin(socket::connect(address))
    }
}
