//! Limits the connections of one client, so that it cannot hold all that the gateway can serve.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bits of an IPv6 address that identify a client: one gets at least a /64 (RFC 6177).
const IPV6_CLIENT_MASK: u128 = !0 << 64;

/// The open connections by client.
#[derive(Debug)]
pub(super) struct ClientConnections {
    /// `None`: no limit.
    limit: Option<usize>,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct ClientConnection {
    connections: Arc<ClientConnections>,
    client: IpAddr,
}

impl ClientConnections {
    /// Allows each client this many connections. 0: any number.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: (limit > 0).then_some(limit), counts: Mutex::default() })
    }

    /// Counts a connection until the returned value is dropped.
    ///
    /// # Errors
    /// The client has as many connections as it may.
    pub(super) fn open(
        self: &Arc<Self>,
        client: IpAddr,
    ) -> Result<Option<ClientConnection>, TooManyClientConnections> {
        let Some(limit) = self.limit else { return Ok(None) };
        let client = client_network(client);
        let mut counts = self.lock();
        let count = counts.entry(client).or_default();
        if *count >= limit {
            return Err(TooManyClientConnections);
        }
        *count += 1;
        Ok(Some(ClientConnection { connections: Arc::clone(self), client }))
    }

    /// A poisoned lock is usable: a count is changed in one step.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client has as many connections as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyClientConnections;

impl Drop for ClientConnection {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.connections.lock().entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn client_network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_CLIENT_MASK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_share() {
        let connections = ClientConnections::new(2);
        let open = |client: &str| connections.open(client.parse().expect("an address"));
        let held = [open("192.0.2.1"), open("::ffff:192.0.2.1")].map(Result::unwrap);
        assert!(open("192.0.2.1").is_err() && open("192.0.2.2").is_ok());
        let _v6 = [open("2001:db8::1"), open("2001:db8::2")].map(Result::unwrap);
        assert!(open("2001:db8::3").is_err(), "one client has the whole network");
        assert!(open("2001:db8:0:1::1").is_ok());
        drop(held);
        assert!(open("192.0.2.1").is_ok());
        assert_eq!(connections.lock().len(), 1, "only clients with connections are kept");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let connections = ClientConnections::new(0);
        let client = "192.0.2.1".parse().expect("an address");
        assert!((0..100).all(|_| matches!(connections.open(client), Ok(None))));
        assert!(connections.lock().is_empty());
    }
}
