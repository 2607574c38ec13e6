//! A sandbox's connection, from when it is accepted until it is over.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    counts::Protocol,
    door::{Door, FromTo},
    means::Means,
    socket::{Socket, broken},
    turn::Turn,
    verdict::{End, Grounds, Subject, judge},
};
use crate::agent::Rules;

/// A connection that its door knows of. It is over when this is dropped.
pub struct Claim {
    pub(super) door: Arc<Door>,
    pub(super) id: u64,
    /// The sandbox's side.
    pub client: Socket,
    pub(super) way: FromTo,
    /// Until it is let out or refused.
    pub(super) turn: Mutex<Turn>,
}

/// A connection that is let out.
pub struct Pass {
    /// The rules that let it out.
    pub rules: Arc<Rules>,
    /// What decided.
    pub grounds: Grounds,
}

impl Claim {
    /// What it is served with.
    pub fn means(&self) -> &Means {
        &self.door.means
    }

    /// Where it was to go.
    pub const fn destination(&self) -> SocketAddr {
        self.way.1
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.door.rules()
    }

    /// Judges the connection, by rules that are in force when this returns. If they let it out and
    /// later ones do not, it is closed.
    pub fn judge(&self, subject: &Subject) -> Result<Pass, End> {
        loop {
            let rules = self.door.rules();
            let explanation = judge(&rules, self.destination(), subject);
            if !explanation.allowed {
                return Err(explanation.into());
            }
            match self.door.enter(self.id, &rules, subject) {
                Some(true) => return Ok(Pass { rules, grounds: explanation.into() }),
                Some(false) => return Err(End::Gone),
                None => {} // newer rules
            }
        }
    }

    /// Enters the other side, which is reset together with the client.
    pub fn attach(&self, upstream: &Socket) -> Result<(), End> {
        if self.door.attach(self.id, upstream) { Ok(()) } else { Err(End::Gone) }
    }

    /// Does something as long as there is a client.
    pub async fn while_there<T>(
        &self,
        work: impl Future<Output = Result<T, End>>,
    ) -> Result<T, End> {
        tokio::select! {
            done = work => done,
            () = broken(&self.client) => Err(End::Gone),
        }
    }

    /// Counts and reports that the connection is let out.
    pub fn let_out(&self, protocol: Protocol, name: Option<&str>, grounds: Grounds) {
        self.end_turn();
        self.door.tally.count(protocol, grounds.reason);
        if self.means().hub.wants_flows() {
            self.report(name, grounds);
        }
    }

    /// Counts and reports that the connection is refused.
    pub fn refuse(&self, protocol: Protocol, name: Option<&str>, grounds: Grounds) {
        self.end_turn();
        self.door.tally.count(protocol, grounds.reason);
        self.report(name, grounds);
    }

    /// The door may take another connection in its place.
    fn end_turn(&self) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn report(&self, name: Option<&str>, grounds: Grounds) {
        self.door.report(self.way, name.map(str::to_owned), grounds);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.door.forget(self.id);
    }
}
