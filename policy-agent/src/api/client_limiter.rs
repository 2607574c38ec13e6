//! Limits on API connections over TCP. A client that has not sent a valid key can be evicted:
//! beyond a limit, the oldest such connection is closed, first one from the same network.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Unauthenticated connections per client network: an IPv4 address or an IPv6 /64.
const MAX_UNAUTHENTICATED_PER_NETWORK: usize = 32;
/// Unauthenticated connections in total.
const MAX_UNAUTHENTICATED: usize = 256;
/// Authenticated connections in total. Those beyond the limit still count as unauthenticated.
const MAX_AUTHENTICATED: usize = 768;

/// Tracks the connections. Clones share their state.
#[derive(Clone, Default)]
pub(super) struct ClientLimiter(Arc<Mutex<ClientLimiterState>>);

#[derive(Default)]
struct ClientLimiterState {
    next_id: u64,
    /// Oldest first.
    unauthenticated: Vec<UnauthenticatedClient>,
    authenticated: usize,
}

struct UnauthenticatedClient {
    id: u64,
    network: IpAddr,
    evicted: CancellationToken,
}

/// One connection. Clones share it; dropping the last one removes the connection from the limiter.
#[derive(Clone)]
pub(super) struct ClientPermit(Option<Arc<ClientPermitState>>);

struct ClientPermitState {
    id: u64,
    limiter: ClientLimiter,
    evicted: CancellationToken,
}

impl ClientLimiter {
    /// Admits a connection and evicts another one if a limit is reached.
    pub(super) fn admit(&self, address: IpAddr) -> ClientPermit {
        let network = client_network(address);
        let mut state = self.lock();
        let is_same_network = |client: &UnauthenticatedClient| client.network == network;
        let clients = &mut state.unauthenticated;
        let evicted_index = if clients.iter().filter(|client| is_same_network(client)).count()
            >= MAX_UNAUTHENTICATED_PER_NETWORK
        {
            clients.iter().position(is_same_network)
        } else {
            (clients.len() >= MAX_UNAUTHENTICATED).then_some(0)
        };
        if let Some(index) = evicted_index {
            clients.remove(index).evicted.cancel();
        }
        let (id, evicted) = (state.next_id, CancellationToken::new());
        state.next_id += 1;
        state.unauthenticated.push(UnauthenticatedClient { id, network, evicted: evicted.clone() });
        drop(state);
        ClientPermit(Some(Arc::new(ClientPermitState { id, limiter: self.clone(), evicted })))
    }

    fn lock(&self) -> MutexGuard<'_, ClientLimiterState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientPermit {
    /// A permit that is never evicted, for clients of the Unix socket.
    pub(super) const UNLIMITED: Self = Self(None);

    /// Marks the connection as authenticated. Has no effect beyond the limit for authenticated
    /// connections.
    pub(super) fn mark_authenticated(&self) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.limiter.lock();
        let position = state.unauthenticated.iter().position(|client| client.id == inner.id);
        if let Some(index) = position.filter(|_| state.authenticated < MAX_AUTHENTICATED) {
            state.unauthenticated.remove(index);
            state.authenticated += 1;
        }
    }

    /// Waits until the connection is evicted.
    pub(super) async fn evicted(&self) {
        match &self.0 {
            Some(inner) => inner.evicted.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for ClientPermitState {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        match state.unauthenticated.iter().position(|client| client.id == self.id) {
            Some(index) => drop(state.unauthenticated.remove(index)),
            // An evicted client was removed from the list already.
            None if self.evicted.is_cancelled() => {}
            None => state.authenticated -= 1,
        }
    }
}

/// The network that counts as one client: one client may own many addresses of an IPv6 /64.
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(permit: &ClientPermit) -> bool {
        permit.0.as_ref().is_some_and(|inner| inner.evicted.is_cancelled())
    }

    fn counts(limiter: &ClientLimiter) -> (usize, usize) {
        let state = limiter.lock();
        (state.unauthenticated.len(), state.authenticated)
    }

    #[test]
    fn a_network_evicts_its_own_oldest_client() {
        let limiter = ClientLimiter::default();
        let other = limiter.admit([192, 0, 2, 2].into());
        let crowd: Vec<_> = (0..MAX_UNAUTHENTICATED_PER_NETWORK + 5)
            .map(|_| limiter.admit([192, 0, 2, 1].into()))
            .collect();
        assert!(crowd[..5].iter().all(is_evicted));
        assert!(!crowd[5..].iter().any(is_evicted) && !is_evicted(&other));
        assert_eq!(counts(&limiter), (MAX_UNAUTHENTICATED_PER_NETWORK + 1, 0));
        drop((crowd, other));
        assert_eq!(counts(&limiter), (0, 0));
    }

    #[test]
    fn an_authenticated_client_is_not_evicted() {
        let limiter = ClientLimiter::default();
        let authenticated = limiter.admit([192, 0, 2, 1].into());
        authenticated.mark_authenticated();
        authenticated.mark_authenticated();
        let crowd: Vec<_> =
            (0..3000_u32).map(|n| limiter.admit((0xc633_6400 + n).to_be_bytes().into())).collect();
        assert!(!is_evicted(&authenticated));
        assert_eq!(counts(&limiter), (MAX_UNAUTHENTICATED, 1));
        assert_eq!(crowd.iter().filter(|permit| !is_evicted(permit)).count(), MAX_UNAUTHENTICATED);
        crowd[0].mark_authenticated();
        drop((authenticated, crowd));
        assert_eq!(counts(&limiter), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let address = |text: &str| client_network(text.parse().expect("an address"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::2:3:4:5"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn authenticated_clients_are_limited_too() {
        let limiter = ClientLimiter::default();
        let all: Vec<_> = (0..MAX_AUTHENTICATED + 3)
            .map(|_| {
                let permit = limiter.admit([192, 0, 2, 1].into());
                permit.mark_authenticated();
                permit
            })
            .collect();
        assert_eq!(counts(&limiter), (3, MAX_AUTHENTICATED));
        drop(all);
        assert_eq!(counts(&limiter), (0, 0));
    }
}
