//! The stand-in for the network.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::net::TcpStream;

use crate::{
    policy::Name,
    proxy::{
        network::{Later, Network, Place},
        socket,
    },
};

/// A network where only what a test sets up exists.
#[derive(Default)]
pub struct World {
    /// Where accepted connections were to go.
    pub destination: Mutex<Option<SocketAddr>>,
    /// The addresses of names.
    pub names: Mutex<HashMap<String, Vec<IpAddr>>>,
    /// Servers, by the address that they are reached at.
    pub servers: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Addresses that never answer.
    pub silent: Mutex<HashSet<IpAddr>>,
    /// Addresses of the host itself.
    pub own: Mutex<HashSet<IpAddr>>,
    /// What was dialled.
    pub dialled: Mutex<Vec<SocketAddr>>,
}

/// The stand-in, which the test keeps a hand on.
pub struct StandIn(pub Arc<World>);

impl Network for StandIn {
    fn destination(&self, _: &TcpStream) -> io::Result<SocketAddr> {
        Ok(self.0.destination.lock().unwrap().expect("a destination"))
    }

    fn resolve<'a>(&'a self, name: &'a Name) -> Later<'a, Vec<IpAddr>> {
        let found = self.0.names.lock().unwrap().get(name.as_str()).cloned();
        Box::pin(async move { found.unwrap_or_default() })
    }

    fn place(&self, address: IpAddr) -> Later<'_, Place> {
        let own = self.0.own.lock().unwrap().contains(&address);
        Box::pin(async move { if own { Place::Host } else { Place::Elsewhere } })
    }

    fn connect(&self, address: SocketAddr) -> Later<'_, io::Result<TcpStream>> {
        self.0.dialled.lock().unwrap().push(address);
        if self.0.silent.lock().unwrap().contains(&address.ip()) {
            return Box::pin(std::future::pending());
        }
        match self.0.servers.lock().unwrap().get(&address).copied() {
            Some(server) => Box::pin(socket::connect(server)),
            None => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
        }
    }
}
