//! A sandbox that sends the same frames repeatedly, for a limited time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{packet_socket::PacketSocket, wait::WAIT_LIMIT};

/// The time limit of a flood, as a multiple of [`WAIT_LIMIT`]. No test needs longer.
const FLOOD_TIMEOUT_FACTOR: u32 = 6;
/// The interval between rounds: much shorter than a policy update, and long enough for the receiver
/// to count the packets.
const ROUND_INTERVAL: Duration = Duration::from_micros(20);

/// A running flood. It ends on drop.
pub struct FrameFlood {
    stopped: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FrameFlood {
    /// Starts to send `frames` in rounds.
    pub fn start(wire: PacketSocket, frames: Vec<Vec<u8>>) -> Self {
        Self::start_at_interval(ROUND_INTERVAL, wire, frames)
    }

    /// Starts to send `frames` at another interval.
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

    /// The number of rounds so far.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Returns whether the flood still runs. A check against a flood that has ended proves nothing.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the flood and returns the number of rounds.
    pub fn stop(mut self) -> u64 {
        self.stop_and_join();
        self.rounds()
    }

    /// Stops the flood.
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
