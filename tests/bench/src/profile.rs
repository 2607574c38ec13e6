//! How thoroughly a benchmark measures.

/// How much time may be spent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BenchProfile {
    /// Rounds, of which the median counts.
    pub(crate) rounds: usize,
    /// Runs of a program per measurement.
    pub(crate) repeats: u32,
    /// Seconds of traffic per measurement.
    pub(crate) seconds: f64,
    /// Sizes of policies.
    pub(crate) policy_sizes: [usize; 3],
    /// Interfaces to attach.
    pub(crate) interfaces: usize,
    /// Connections that are open and silent.
    pub(crate) idle_connections: usize,
}

impl BenchProfile {
    /// For numbers that mean something.
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        repeats: 2_000_000,
        seconds: 1.5,
        policy_sizes: [10, 1_000, 50_000],
        interfaces: 200,
        idle_connections: 10_000,
    };

    /// To see that everything runs.
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        repeats: 20_000,
        seconds: 0.1,
        policy_sizes: [10, 1_000, 5_000],
        interfaces: 5,
        idle_connections: 200,
    };
}
