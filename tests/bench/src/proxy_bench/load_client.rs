//! Load from a sandbox: many connections from one thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    proxy_setup::ProxySetup,
    wire_protocol::{REPLY_BYTES, server_address},
};

/// The time limit of each step of a connection. The measurement fails if it expires.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The latencies of a run.
pub(crate) struct LatencySample {
    /// The latency of each operation in ms, sorted.
    latencies_ms: Vec<f64>,
    /// The total time in s.
    elapsed_seconds: f64,
}

impl LatencySample {
    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_ms.len() as f64 / self.elapsed_seconds
    }

    /// The number of operations.
    pub(crate) fn count(&self) -> usize {
        self.latencies_ms.len()
    }

    /// The latency that this percentage of operations did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = self.latencies_ms.len() * percent / 100;
        self.latencies_ms
            .get(index.min(self.latencies_ms.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    }
}

/// Creates a runtime on this thread. Its sockets belong to the thread's namespace.
pub(crate) fn current_thread_runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Runs short connections with a fixed concurrency.
pub(crate) fn run_concurrent(
    lane: &ProxySetup,
    at_once: usize,
    time: Duration,
) -> Result<LatencySample> {
    let hello = &lane.hello;
    in_sandbox(lane, async {
        let end = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let hello = Arc::clone(hello);
            tasks.spawn(async move {
                let mut taken = Vec::new();
                while Instant::now() < end {
                    taken.push(time_connection(&hello).await?);
                }
                Ok(taken)
            });
        }
        join_all(tasks).await
    })
}

/// Runs short connections at a fixed rate, even if earlier ones are not finished.
pub(crate) fn run_at_rate(
    lane: &ProxySetup,
    per_second: u32,
    time: Duration,
) -> Result<LatencySample> {
    let hello = &lane.hello;
    in_sandbox(lane, async {
        let mut ticks = interval(Duration::from_secs(1) / per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tasks = JoinSet::new();
        for _ in 0..time.as_millis() * u128::from(per_second) / 1000 {
            ticks.tick().await;
            let hello = Arc::clone(hello);
            tasks.spawn(async move { Ok(vec![time_connection(&hello).await?]) });
        }
        join_all(tasks).await
    })
}

/// Runs a future in the sandbox of a setup and measures the time.
pub(crate) fn in_sandbox(
    lane: &ProxySetup,
    flood: impl Future<Output = Result<Vec<f64>>>,
) -> Result<LatencySample> {
    let _inside = lane.sandbox.namespace.enter()?;
    let begin = Instant::now();
    let mut taken = current_thread_runtime()?.block_on(flood).context(lane.variant.name())?;
    let time = begin.elapsed().as_secs_f64();
    taken.sort_by(f64::total_cmp);
    Ok(LatencySample { latencies_ms: taken, elapsed_seconds: time })
}

/// Returns the results of all tasks.
pub(crate) async fn join_all<T: 'static>(mut tasks: JoinSet<Result<Vec<T>>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.append(&mut result??);
    }
    Ok(results)
}

/// The ms from connecting to the server's reply.
async fn time_connection(hello: &[u8]) -> Result<f64> {
    let begin = Instant::now();
    connect_and_greet(hello).await?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Opens a connection and waits for the server's reply.
pub(crate) async fn connect_and_greet(hello: &[u8]) -> Result<TcpStream> {
    with_timeout(async {
        let mut stream = TcpStream::connect(server_address(443)).await?;
        stream.write_all(hello).await?;
        stream.read_exact(&mut [0; REPLY_BYTES]).await?;
        Ok(stream)
    })
    .await
}

/// Fails after a time limit.
pub(crate) async fn with_timeout<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STEP_TIMEOUT, what).await.context("a connection hangs")?
}
