//! The connections that clients have over TCP. Whoever has not shown a key has no right to stay: when
//! there are too many such, the oldest of them makes room, at first one from the same address.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Connections from one address (of IPv6: one /64) that have not shown a key.
const PER_NETWORK: usize = 32;
/// All connections that have not shown a key.
const STRANGERS: usize = 256;
/// All connections that have: those beyond stay strangers.
const KNOWN: usize = 768;

/// Who is connected. A clone is the same list.
#[derive(Clone, Default)]
pub struct Guests(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    next: u64,
    /// The oldest first.
    strangers: Vec<Stranger>,
    known: usize,
}

struct Stranger {
    id: u64,
    network: IpAddr,
    evicted: CancellationToken,
}

/// One connection. A clone is the same one; it is over when the last is dropped.
#[derive(Clone)]
pub struct Guest(Option<Arc<Seat>>);

struct Seat {
    id: u64,
    guests: Guests,
    evicted: CancellationToken,
}

impl Guests {
    /// Takes a connection, and sends another one away if there are too many.
    pub fn admit(&self, address: IpAddr) -> Guest {
        let network = network(address);
        let mut list = self.list();
        let same = |stranger: &Stranger| stranger.network == network;
        let strangers = &mut list.strangers;
        let too_many = if strangers.iter().filter(|stranger| same(stranger)).count() >= PER_NETWORK
        {
            strangers.iter().position(same)
        } else {
            (strangers.len() >= STRANGERS).then_some(0)
        };
        if let Some(index) = too_many {
            strangers.remove(index).evicted.cancel();
        }
        let (id, evicted) = (list.next, CancellationToken::new());
        list.next += 1;
        list.strangers.push(Stranger { id, network, evicted: evicted.clone() });
        drop(list);
        Guest(Some(Arc::new(Seat { id, guests: self.clone(), evicted })))
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// One that nobody sends away: of the Unix socket.
    pub const TRUSTED: Self = Self(None);

    /// It has shown a key.
    pub fn is_known(&self) {
        let Some(seat) = &self.0 else { return };
        let mut list = seat.guests.list();
        let stranger = list.strangers.iter().position(|stranger| stranger.id == seat.id);
        if let Some(index) = stranger.filter(|_| list.known < KNOWN) {
            list.strangers.remove(index);
            list.known += 1;
        }
    }

    /// Waits until it has to make room.
    pub async fn evicted(&self) {
        match &self.0 {
            Some(seat) => seat.evicted.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut list = self.guests.list();
        match list.strangers.iter().position(|stranger| stranger.id == self.id) {
            Some(index) => drop(list.strangers.remove(index)),
            // Who was sent away is counted nowhere.
            None if self.evicted.is_cancelled() => {}
            None => list.known -= 1,
        }
    }
}

/// What one client can have many of is one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(guest: &Guest) -> bool {
        guest.0.as_ref().is_some_and(|seat| seat.evicted.is_cancelled())
    }

    fn counts(guests: &Guests) -> (usize, usize) {
        let list = guests.list();
        (list.strangers.len(), list.known)
    }

    #[test]
    fn an_address_makes_room_for_itself() {
        let guests = Guests::default();
        let other = guests.admit([192, 0, 2, 2].into());
        let crowd: Vec<_> =
            (0..PER_NETWORK + 5).map(|_| guests.admit([192, 0, 2, 1].into())).collect();
        assert!(crowd[..5].iter().all(is_evicted));
        assert!(!crowd[5..].iter().any(is_evicted) && !is_evicted(&other));
        assert_eq!(counts(&guests), (PER_NETWORK + 1, 0));
        drop((crowd, other));
        assert_eq!(counts(&guests), (0, 0));
    }

    #[test]
    fn who_has_a_key_stays() {
        let guests = Guests::default();
        let known = guests.admit([192, 0, 2, 1].into());
        known.is_known();
        known.is_known();
        let crowd: Vec<_> =
            (0..3000_u32).map(|n| guests.admit((0xc633_6400 + n).to_be_bytes().into())).collect();
        assert!(!is_evicted(&known));
        assert_eq!(counts(&guests), (STRANGERS, 1));
        assert_eq!(crowd.iter().filter(|guest| !is_evicted(guest)).count(), STRANGERS);
        crowd[0].is_known();
        drop((known, crowd));
        assert_eq!(counts(&guests), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let address = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::2:3:4:5"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn there_is_an_end_to_those_with_a_key() {
        let guests = Guests::default();
        let all: Vec<_> = (0..KNOWN + 3)
            .map(|_| {
                let guest = guests.admit([192, 0, 2, 1].into());
                guest.is_known();
                guest
            })
            .collect();
        assert_eq!(counts(&guests), (3, KNOWN));
        drop(all);
        assert_eq!(counts(&guests), (0, 0));
    }
}
