//! Queries the kernel's routing tables for an address. Only they know all addresses of the host,
//! including secondary ones and whole prefixes routed to the host (AnyIP).

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

use super::host_network::AddressLocality;

/// How long a route is cached: connections often go to the same few addresses.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// Maximum number of cached routes.
const MAX_CACHED_ROUTES: usize = 1024;

/// The routing tables of the host's network namespace.
pub(super) struct HostRoutes {
    handle: Handle,
    remote_cache: Mutex<HashMap<IpAddr, Instant>>,
}

impl HostRoutes {
    /// Opens a route socket. The current runtime drives it.
    pub(super) fn new() -> Result<Self> {
        let (connection, handle, _) = new_connection().context("cannot open a route socket")?;
        tokio::spawn(connection);
        Ok(Self { handle, remote_cache: Mutex::default() })
    }

    /// Where an address leads. It is unroutable if the kernel reports no route or an error.
    pub(super) async fn locality(&self, address: IpAddr) -> AddressLocality {
        if self.is_cached_remote(address) {
            return AddressLocality::Remote;
        }
        let mut answers = Box::pin(self.handle.route().get(route_request(address)).execute());
        let locality = match answers.try_next().await {
            Ok(Some(route)) => locality_of(route.header.kind),
            Ok(None) | Err(_) => AddressLocality::Unroutable,
        };
        if locality == AddressLocality::Remote {
            self.cache_remote(address);
        }
        locality
    }

    fn is_cached_remote(&self, address: IpAddr) -> bool {
        let remote_cache = self.remote_cache.lock().unwrap_or_else(PoisonError::into_inner);
        remote_cache.get(&address).is_some_and(|cached_at| cached_at.elapsed() < CACHE_TTL)
    }

    fn cache_remote(&self, address: IpAddr) {
        let mut remote_cache = self.remote_cache.lock().unwrap_or_else(PoisonError::into_inner);
        if remote_cache.len() >= MAX_CACHED_ROUTES {
            remote_cache.clear();
        }
        remote_cache.insert(address, Instant::now());
    }
}

fn route_request(address: IpAddr) -> RouteMessage {
    match address {
        IpAddr::V4(v4) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(v4, 32).build()
        }
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(v6, 128).build()
        }
    }
}

fn locality_of(kind: RouteType) -> AddressLocality {
    match kind {
        RouteType::Unicast => AddressLocality::Remote,
        RouteType::Local => AddressLocality::Local,
        _ => AddressLocality::Unroutable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_host_knows_itself() {
        let routes = HostRoutes::new().expect("a route socket");
        for (address, expected) in [
            ("127.0.0.1", AddressLocality::Local),
            ("127.9.8.7", AddressLocality::Local), // on no interface: 127.0.0.0/8 is routed to the host
            ("::1", AddressLocality::Local),
            ("255.255.255.255", AddressLocality::Unroutable),
        ] {
            assert_eq!(
                routes.locality(address.parse().expect(address)).await,
                expected,
                "{address}"
            );
            assert!(
                !routes.is_cached_remote(address.parse().expect(address)),
                "only others are remembered"
            );
        }
    }
}
