//! Measures the cost of a fault: a sandbox sends continuously to an allowed destination and to a
//! denied one, and every packet that crosses is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{ALLOWED_ADDRESSES, FrameFlood, OrFail as _, TestSandbox, parse_ip};
use crate::{
    packet_socket::{PacketSocket, contains_bytes},
    test_servers,
    wait::eventually,
};

/// About 200 denied packets per second, below the agent's rate limit for replies, so that probes
/// also get replies.
const ROUND_INTERVAL: Duration = Duration::from_millis(5);
/// Allowed packets per round: few enough for a busy machine to read every one.
const ALLOWED_PER_ROUND: u32 = 10;

/// The minimum number of rounds: half a second.
const MIN_ROUNDS: u64 = 100;

/// An address that a sandbox limited to [`ALLOWED_ADDRESSES`] cannot reach.
const DENIED_ADDRESS: &str = "8.8.8.9";

/// A flood whose packets are counted at the destination.
pub struct CountedFlood {
    flood: FrameFlood,
    counters: Arc<FloodCounters>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct FloodCounters {
    arrived: AtomicU64,
    leaked: AtomicU64,
    stopped: AtomicBool,
}

impl TestSandbox {
    /// Starts to send from a sandbox that can reach [`ALLOWED_ADDRESSES`] and nothing else.
    #[track_caller]
    pub fn start_counted_flood(&self) -> CountedFlood {
        self.assert_reaches(ALLOWED_ADDRESSES[0]);
        let passing = format!("<<passes {}>>", self.namespace.name()).into_bytes();
        let (token, beyond) = (self.frame_token(), self.open_uplink_socket());
        let allowed = self.frame_builder().udp(
            parse_ip(ALLOWED_ADDRESSES[0]),
            test_servers::CLOSED_PORT,
            &passing,
        );
        let denied =
            self.frame_builder().udp(parse_ip(DENIED_ADDRESS), test_servers::CLOSED_PORT, &token);
        let mut frames = vec![allowed; ALLOWED_PER_ROUND as usize];
        frames.push(denied);
        let counts = Arc::<FloodCounters>::default();
        let count = Arc::clone(&counts);
        let reader = thread::spawn(move || count.count_frames(&beyond, &passing, &token));
        let flood =
            FrameFlood::start_at_interval(ROUND_INTERVAL, self.open_packet_socket(), frames);
        CountedFlood { flood, counters: counts, reader: Some(reader) }
    }
}

impl FloodCounters {
    fn count_frames(&self, beyond: &PacketSocket, passing: &[u8], token: &[u8]) {
        while !self.stopped.load(Ordering::Relaxed) {
            let Ok(Some(frame)) = beyond.try_receive() else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            self.arrived.fetch_add(contains_bytes(&frame, passing).into(), Ordering::Relaxed);
            self.leaked.fetch_add(contains_bytes(&frame, token).into(), Ordering::Relaxed);
        }
    }
}

impl CountedFlood {
    /// The number of rounds so far. A round takes 5 ms.
    pub fn rounds(&self) -> u64 {
        self.flood.rounds()
    }

    /// The number of denied packets that have crossed so far.
    pub fn leaked_packets(&self) -> u64 {
        self.counters.leaked.load(Ordering::Relaxed)
    }

    /// Stops the flood. Returns the numbers of allowed packets sent, denied packets leaked and
    /// allowed packets lost, and prints them for `docs/reliability.md`.
    #[track_caller]
    pub fn finish(mut self, fault: &str) -> (u64, u64, u64) {
        let enough = || (self.flood.rounds() >= MIN_ROUNDS).then_some(());
        eventually("enough was sent to prove anything", enough).or_fail(fault);
        assert!(self.flood.is_running(), "the flood ended too early to prove anything");
        self.flood.stop_and_join();
        let denied = self.flood.rounds();
        let sent = denied * u64::from(ALLOWED_PER_ROUND);
        let arrived = || self.counters.arrived.load(Ordering::Relaxed);
        let _all = eventually("every packet", || (arrived() >= sent).then_some(()));
        let (leaked, lost) = (self.leaked_packets(), sent.saturating_sub(arrived()));
        eprintln!("tally | {fault} | {leaked} of {denied} leaked | {lost} of {sent} lost");
        (sent, leaked, lost)
    }

    /// Stops the flood and asserts that no packet leaked or was lost.
    #[track_caller]
    pub fn assert_no_leak_or_loss(self, fault: &str) {
        let (sent, leaked, lost) = self.finish(fault);
        assert!(sent > 0 && (leaked, lost) == (0, 0), "{leaked} leaked, {lost} lost of {sent}");
    }
}

impl Drop for CountedFlood {
    fn drop(&mut self) {
        self.counters.stopped.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
