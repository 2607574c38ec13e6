//! The sandbox's programs: many connections from one thread.

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

/// How long a step of a connection may take before the measurement fails.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a flood of something was like.
pub(crate) struct LatencySample {
    /// How long each took, in ms, sorted.
    latencies_ms: Vec<f64>,
    /// How long all took, in s.
    elapsed_seconds: f64,
}

impl LatencySample {
    /// How many there were per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_ms.len() as f64 / self.elapsed_seconds
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.latencies_ms.len()
    }

    /// The time that so many per cent of them did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = self.latencies_ms.len() * percent / 100;
        self.latencies_ms
            .get(index.min(self.latencies_ms.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    }
}

/// A runtime on this thread. Within it, sockets belong to the namespace that the thread is in.
pub(crate) fn current_thread_runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Short connections, so many at any time.
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

/// Short connections, so many per second, whether the ones before are done or not.
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

/// Runs something in a lane's sandbox, and takes the time.
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

/// The results of all tasks.
pub(crate) async fn join_all<T: 'static>(mut tasks: JoinSet<Result<Vec<T>>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.append(&mut result??);
    }
    Ok(results)
}

/// The ms from connecting to the server's answer.
async fn time_connection(hello: &[u8]) -> Result<f64> {
    let begin = Instant::now();
    connect_and_greet(hello).await?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// A connection that the server has answered.
pub(crate) async fn connect_and_greet(hello: &[u8]) -> Result<TcpStream> {
    with_timeout(async {
        let mut stream = TcpStream::connect(server_address(443)).await?;
        stream.write_all(hello).await?;
        stream.read_exact(&mut [0; REPLY_BYTES]).await?;
        Ok(stream)
    })
    .await
}

/// Gives something up that takes far too long.
pub(crate) async fn with_timeout<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STEP_TIMEOUT, what).await.context("a connection hangs")?
}
