//! A sandbox that sends the same frames over and over, within bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{patience::PATIENCE, wire::Wire};

/// No test needs longer: so many times what anything may take.
const LONGEST: u32 = 6;
/// A round begins so long after the one before: much faster than a change of a policy, and slow
/// enough for who counts the packets.
const ROUND: Duration = Duration::from_micros(20);

/// A flood under way; it ends on drop.
pub struct Flood {
    ended: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Begins to send `frames`, in rounds.
    pub fn of(wire: Wire, frames: Vec<Vec<u8>>) -> Self {
        Self::every(ROUND, wire, frames)
    }

    /// The same at another pace.
    pub fn every(round: Duration, wire: Wire, frames: Vec<Vec<u8>>) -> Self {
        let (ended, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&ended), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            let (begin, mut next) = (Instant::now(), Duration::ZERO);
            while !end.load(Ordering::Relaxed) && begin.elapsed() < LONGEST * *PATIENCE {
                let early = next.saturating_sub(begin.elapsed());
                if !early.is_zero() {
                    if round > ROUND {
                        thread::sleep(early)
                    } else {
                        thread::yield_now()
                    }
                    continue;
                }
                next = begin.elapsed() + round;
                if !frames.iter().all(|frame| wire.send(frame).is_ok()) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { ended, rounds, thread: Some(thread) }
    }

    /// Rounds sent so far.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Whether it is still under way: a proof made against a flood that had ended proves nothing.
    pub fn is_under_way(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it: how many rounds were sent.
    pub fn end(mut self) -> u64 {
        self.join();
        self.rounds()
    }

    /// Ends it.
    pub(super) fn join(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.join();
    }
}
