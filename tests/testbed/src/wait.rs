//! Waiting: never for a time, always for something, and never for ever.

use std::{
    env,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// The seconds of [`WAIT_LIMIT`] on a machine that is slower than most, as an emulated one is.
pub const WAIT_LIMIT_VARIABLE: &str = "POLICY_TEST_PATIENCE";

/// How long anything that should happen may take on a busy machine.
pub static WAIT_LIMIT: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = env::var(WAIT_LIMIT_VARIABLE).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
});

/// Asks again and again until there is an answer; an error that names `what` after [`WAIT_LIMIT`].
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Result<T> {
    eventually_within(*WAIT_LIMIT, what, ask)
}

/// The same for what may take another time.
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if begin.elapsed() > limit {
            bail!("waited {limit:?} in vain for: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
