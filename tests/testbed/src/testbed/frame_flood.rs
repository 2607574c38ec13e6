//! A sandbox that sends the same frames over and over, within bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{packet_socket::PacketSocket, wait::WAIT_LIMIT};

/// No test needs longer: so many times what anything may take.
const FLOOD_TIMEOUT_FACTOR: u32 = 6;
/// A round begins so long after the one before: much faster than a change of a policy, and slow
/// enough for who counts the packets.
const ROUND_INTERVAL: Duration = Duration::from_micros(20);

/// A flood under way; it ends on drop.
pub struct FrameFlood {
    stopped: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FrameFlood {
    /// Begins to send `frames`, in rounds.
    pub fn start(wire: PacketSocket, frames: Vec<Vec<u8>>) -> Self {
        Self::start_at_interval(ROUND_INTERVAL, wire, frames)
    }

    /// The same at another pace.
    pub fn start_at_interval(round: Duration, wire: PacketSocket, frames: Vec<Vec<u8>>) -> Self {
        let (ended, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&ended), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            let (begin, mut next) = (Instant::now(), Duration::ZERO);
            while !end.load(Ordering::Relaxed)
                && begin.elapsed() < FLOOD_TIMEOUT_FACTOR * *WAIT_LIMIT
            {
                let early = next.saturating_sub(begin.elapsed());
                if !early.is_zero() {
                    if round > ROUND_INTERVAL {
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
        Self { stopped: ended, rounds, thread: Some(thread) }
    }

    /// Rounds sent so far.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Whether it is still under way: a proof made against a flood that had ended proves nothing.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it: how many rounds were sent.
    pub fn stop(mut self) -> u64 {
        self.stop_and_join();
        self.rounds()
    }

    /// Ends it.
    pub(super) fn stop_and_join(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for FrameFlood {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}
