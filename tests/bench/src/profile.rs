//! The thoroughness of a benchmark.

/// The number and size of measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BenchProfile {
    /// The number of rounds. The median counts.
    pub(crate) rounds: usize,
    /// Runs of a program per measurement.
    pub(crate) repeats: u32,
    /// Seconds of traffic per measurement.
    pub(crate) seconds: f64,
    /// The policy sizes.
    pub(crate) policy_sizes: [usize; 3],
    /// The number of sandboxes to attach.
    pub(crate) interfaces: usize,
    /// The number of idle connections.
    pub(crate) idle_connections: usize,
}

impl BenchProfile {
    /// For meaningful numbers.
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        repeats: 2_000_000,
        seconds: 1.5,
        policy_sizes: [10, 1_000, 50_000],
        interfaces: 1_000,
        idle_connections: 10_000,
    };

    /// To check that everything runs.
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        repeats: 20_000,
        seconds: 0.1,
        policy_sizes: [10, 1_000, 5_000],
        interfaces: 10,
        idle_connections: 200,
    };
}
