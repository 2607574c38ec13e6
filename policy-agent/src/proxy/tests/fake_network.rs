//! A fake of the network.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::net::TcpStream;

use crate::{
    policy::DomainName,
    proxy::{
        host_network::{AddressLocality, BoxFuture, ProxyNetwork},
        lookup_limiter::LookupLimiter,
        socket,
    },
};

/// A network in which only what a test sets up exists.
#[derive(Default)]
pub(super) struct FakeNetworkState {
    /// The original destination of accepted connections.
    pub destination: Mutex<Option<SocketAddr>>,
    /// Addresses by name.
    pub names: Mutex<HashMap<String, Vec<IpAddr>>>,
    /// Real server addresses by the address under which the proxy dials them.
    pub servers: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Addresses that never answer.
    pub unresponsive: Mutex<HashSet<IpAddr>>,
    /// Addresses of the host itself.
    pub host_addresses: Mutex<HashSet<IpAddr>>,
    /// All dialed addresses.
    pub dialed: Mutex<Vec<SocketAddr>>,
}

/// The fake. Its state is shared with the test.
pub(super) struct FakeNetwork(pub Arc<FakeNetworkState>);

impl ProxyNetwork for FakeNetwork {
    fn original_destination(&self, _: &TcpStream) -> io::Result<SocketAddr> {
        Ok(self.0.destination.lock().unwrap().expect("a destination"))
    }

    fn dialed_address(&self, upstream: &TcpStream) -> io::Result<IpAddr> {
        let server = upstream.peer_addr()?;
        let servers = self.0.servers.lock().unwrap();
        let dialed = servers.iter().find(|(_, known)| **known == server);
        dialed.map(|(address, _)| address.ip()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn resolve<'a>(
        &'a self,
        name: &'a DomainName,
        _: &'a LookupLimiter,
    ) -> BoxFuture<'a, Vec<IpAddr>> {
        let addresses = self.0.names.lock().unwrap().get(name.as_str()).cloned();
        Box::pin(async move { addresses.unwrap_or_default() })
    }

    fn locality(&self, address: IpAddr) -> BoxFuture<'_, AddressLocality> {
        let is_host = self.0.host_addresses.lock().unwrap().contains(&address);
        Box::pin(
            async move { if is_host { AddressLocality::Local } else { AddressLocality::Remote } },
        )
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.0.dialed.lock().unwrap().push(address);
        if self.0.unresponsive.lock().unwrap().contains(&address.ip()) {
            return Box::pin(std::future::pending());
        }
        match self.0.servers.lock().unwrap().get(&address).copied() {
            Some(server) => Box::pin(socket::connect_tcp(server)),
            None => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
        }
    }
}
