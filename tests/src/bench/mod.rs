//! What is measured, and how: `docs/performance.md` explains the numbers.
//!
//! Whatever is compared is measured in turns, several rounds of it, and the median counts: the
//! machine's moods then meet all sides alike. Targets are printed beside the results and never
//! asserted.

pub mod apply;
pub mod attach;
pub mod bulk;
pub mod dropping;
pub mod forwarding;
pub mod gateway;
mod lists;
pub mod machine;
pub mod memory;
pub mod packet_path;
pub mod proxied;
mod report;
mod rounds;
mod sender;
mod topology;

pub use report::Table;

/// How much time may be spent.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds, of which the median counts.
    pub rounds: usize,
    /// Runs of a program per measurement.
    pub repeat: u32,
    /// Seconds of traffic per measurement.
    pub seconds: f64,
    /// Sizes of policies.
    pub sizes: [usize; 3],
    /// Interfaces to attach.
    pub interfaces: usize,
    /// Connections that are open and silent.
    pub idle: usize,
}

impl Effort {
    /// For numbers that mean something.
    pub const FULL: Self = Self {
        rounds: 5,
        repeat: 2_000_000,
        seconds: 1.5,
        sizes: [10, 1_000, 50_000],
        interfaces: 200,
        idle: 10_000,
    };

    /// To see that everything runs.
    pub const QUICK: Self = Self {
        rounds: 1,
        repeat: 20_000,
        seconds: 0.1,
        sizes: [10, 1_000, 5_000],
        interfaces: 5,
        idle: 200,
    };
}
