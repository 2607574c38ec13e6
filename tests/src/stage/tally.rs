//! What a fault costs: a sandbox sends without a pause to a destination that it may reach and to one
//! that it may not, and every packet that crosses is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Flood, Guest, OPENED, OrFail as _, ip};
use crate::{
    patience::eventually,
    server,
    wire::{Wire, carries},
};

/// Some 200 denied packets per second: fewer than the agent answers, so that probes are answered, too.
const ROUND: Duration = Duration::from_millis(5);
/// Allowed packets per round: few enough for every one to be read on a busy machine.
const ALLOWED: u64 = 10;

/// Rounds before it may end: half a second.
const ENOUGH: u64 = 100;

/// What a sandbox may not reach that may reach what is [`OPENED`].
const DENIED: &str = "8.8.8.9";

/// A flood that is counted at its far end.
pub struct Tally {
    flood: Flood,
    counts: Arc<Counts>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    arrived: AtomicU64,
    leaked: AtomicU64,
    ended: AtomicBool,
}

impl Guest {
    /// Begins to send, as a sandbox that may reach what is [`OPENED`] and nothing else.
    #[track_caller]
    pub fn tally(&self) -> Tally {
        self.reaches(OPENED[0]);
        let passing = format!("<<passes {}>>", self.inside.name()).into_bytes();
        let (token, beyond) = (self.token(), self.beyond_the_host());
        let allowed = self.sender().udp(ip(OPENED[0]), server::CLOSED, &passing);
        let denied = self.sender().udp(ip(DENIED), server::CLOSED, &token);
        let mut frames = vec![allowed; ALLOWED as usize];
        frames.push(denied);
        let counts = Arc::<Counts>::default();
        let count = Arc::clone(&counts);
        let reader = thread::spawn(move || count.read(&beyond, &passing, &token));
        let flood = Flood::every(ROUND, self.wire(), frames);
        Tally { flood, counts, reader: Some(reader) }
    }
}

impl Counts {
    fn read(&self, beyond: &Wire, passing: &[u8], token: &[u8]) {
        while !self.ended.load(Ordering::Relaxed) {
            let Ok(Some(frame)) = beyond.next() else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            self.arrived.fetch_add(carries(&frame, passing).into(), Ordering::Relaxed);
            self.leaked.fetch_add(carries(&frame, token).into(), Ordering::Relaxed);
        }
    }
}

impl Tally {
    /// Rounds so far, of five milliseconds.
    pub fn rounds(&self) -> u64 {
        self.flood.rounds()
    }

    /// Packets that should have been dropped and crossed, so far.
    pub fn leaked(&self) -> u64 {
        self.counts.leaked.load(Ordering::Relaxed)
    }

    /// Ends it: allowed packets sent, denied ones leaked, allowed ones lost. They are shown, for `docs/reliability.md`.
    #[track_caller]
    pub fn end(mut self, fault: &str) -> (u64, u64, u64) {
        let enough = || (self.flood.rounds() >= ENOUGH).then_some(());
        eventually("enough was sent to prove anything", enough).or_fail(fault);
        assert!(self.flood.is_under_way(), "the flood ended too early to prove anything");
        self.flood.join();
        let denied = self.flood.rounds();
        let sent = denied * ALLOWED;
        let arrived = || self.counts.arrived.load(Ordering::Relaxed);
        let _all = eventually("every packet", || (arrived() >= sent).then_some(()));
        let (leaked, lost) = (self.leaked(), sent.saturating_sub(arrived()));
        eprintln!("tally | {fault} | {leaked} of {denied} leaked | {lost} of {sent} lost");
        (sent, leaked, lost)
    }

    /// Ends it, and not one packet may have leaked or been lost.
    #[track_caller]
    pub fn is_clean(self, fault: &str) {
        let (sent, leaked, lost) = self.end(fault);
        assert!(sent > 0 && (leaked, lost) == (0, 0), "{leaked} leaked, {lost} lost of {sent}");
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.counts.ended.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
