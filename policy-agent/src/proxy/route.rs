//! Asks the kernel's routing tables where an address leads to. Only they know all of the host's own
//! addresses: secondary ones, and whole prefixes that are routed to the host (AnyIP).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::route::{RouteMessage, RouteType},
};

use super::network::Place;

/// How long an answer holds: connections often go to the same few addresses.
const FRESH: Duration = Duration::from_secs(1);
/// Answers that are remembered.
const REMEMBERED: usize = 1024;

/// The routing tables of the host's network namespace.
pub struct Routes {
    handle: Handle,
    elsewhere: Mutex<HashMap<IpAddr, Instant>>,
}

impl Routes {
    /// Opens a route socket. It is served by the current runtime.
    pub fn new() -> Result<Self> {
        let (connection, handle, _) = new_connection().context("cannot open a route socket")?;
        tokio::spawn(connection);
        Ok(Self { handle, elsewhere: Mutex::default() })
    }

    /// Where an address leads to. What the kernel does not answer leads nowhere.
    pub async fn place(&self, address: IpAddr) -> Place {
        if self.is_known(address) {
            return Place::Elsewhere;
        }
        let mut answers = Box::pin(self.handle.route().get(question(address)).execute());
        let place = match answers.try_next().await {
            Ok(Some(route)) => place(route.header.kind),
            Ok(None) | Err(_) => Place::Nowhere,
        };
        if place == Place::Elsewhere {
            self.remember(address);
        }
        place
    }

    fn is_known(&self, address: IpAddr) -> bool {
        let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.get(&address).is_some_and(|asked| asked.elapsed() < FRESH)
    }

    fn remember(&self, address: IpAddr) {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if elsewhere.len() >= REMEMBERED {
            elsewhere.clear();
        }
        elsewhere.insert(address, Instant::now());
    }
}

fn question(address: IpAddr) -> RouteMessage {
    match address {
        IpAddr::V4(v4) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(v4, 32).build()
        }
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(v6, 128).build()
        }
    }
}

fn place(kind: RouteType) -> Place {
    match kind {
        RouteType::Unicast => Place::Elsewhere,
        RouteType::Local => Place::Host,
        _ => Place::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_host_knows_itself() {
        let routes = Routes::new().expect("a route socket");
        for (address, expected) in [
            ("127.0.0.1", Place::Host),
            ("127.9.8.7", Place::Host), // on no interface: 127.0.0.0/8 is routed to the host
            ("::1", Place::Host),
            ("255.255.255.255", Place::Nowhere),
        ] {
            assert_eq!(routes.place(address.parse().expect(address)).await, expected, "{address}");
            assert!(
                !routes.is_known(address.parse().expect(address)),
                "only others are remembered"
            );
        }
    }
}
