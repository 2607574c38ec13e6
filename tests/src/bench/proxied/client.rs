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
    hello::{REPLY, server},
    lane::Lane,
};

/// How long a step of a connection may take before the measurement fails.
const LIMIT: Duration = Duration::from_secs(10);

/// What a flood of something was like.
pub struct Flood {
    /// How long each took, in ms, sorted.
    taken: Vec<f64>,
    /// How long all took, in s.
    time: f64,
}

impl Flood {
    /// How many there were per second.
    pub fn rate(&self) -> f64 {
        self.taken.len() as f64 / self.time
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.taken.len()
    }

    /// The time that so many per cent of them did not exceed.
    pub fn percentile(&self, percent: usize) -> f64 {
        let index = self.taken.len() * percent / 100;
        self.taken.get(index.min(self.taken.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

/// A runtime on this thread. Within it, sockets belong to the namespace that the thread is in.
pub fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Short connections, so many at any time.
pub fn flood(lane: &Lane, at_once: usize, time: Duration) -> Result<Flood> {
    let hello = &lane.hello;
    in_sandbox(lane, async {
        let end = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let hello = Arc::clone(hello);
            tasks.spawn(async move {
                let mut taken = Vec::new();
                while Instant::now() < end {
                    taken.push(timed(&hello).await?);
                }
                Ok(taken)
            });
        }
        all(tasks).await
    })
}

/// Short connections, so many per second, whether the ones before are done or not.
pub fn steady(lane: &Lane, per_second: u32, time: Duration) -> Result<Flood> {
    let hello = &lane.hello;
    in_sandbox(lane, async {
        let mut ticks = interval(Duration::from_secs(1) / per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tasks = JoinSet::new();
        for _ in 0..time.as_millis() * u128::from(per_second) / 1000 {
            ticks.tick().await;
            let hello = Arc::clone(hello);
            tasks.spawn(async move { Ok(vec![timed(&hello).await?]) });
        }
        all(tasks).await
    })
}

/// Runs something in a lane's sandbox, and takes the time.
pub fn in_sandbox(lane: &Lane, flood: impl Future<Output = Result<Vec<f64>>>) -> Result<Flood> {
    let _inside = lane.sandbox.inside.enter()?;
    let begin = Instant::now();
    let mut taken = runtime()?.block_on(flood).context(lane.way.name())?;
    let time = begin.elapsed().as_secs_f64();
    taken.sort_by(f64::total_cmp);
    Ok(Flood { taken, time })
}

/// The results of all tasks.
pub async fn all<T: 'static>(mut tasks: JoinSet<Result<Vec<T>>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.append(&mut result??);
    }
    Ok(results)
}

/// The ms from connecting to the server's answer.
async fn timed(hello: &[u8]) -> Result<f64> {
    let begin = Instant::now();
    greeted(hello).await?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// A connection that the server has answered.
pub async fn greeted(hello: &[u8]) -> Result<TcpStream> {
    limited(async {
        let mut stream = TcpStream::connect(server(443)).await?;
        stream.write_all(hello).await?;
        stream.read_exact(&mut [0; REPLY]).await?;
        Ok(stream)
    })
    .await
}

/// Gives something up that takes far too long.
pub async fn limited<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LIMIT, what).await.context("a connection hangs")?
}
