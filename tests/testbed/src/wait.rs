//! Waits for conditions, always with a time limit and never for a fixed time.

use std::{
    env, io,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// The environment variable that sets [`WAIT_LIMIT`] in seconds, for slow machines such as emulated
/// ones.
pub const WAIT_LIMIT_VARIABLE: &str = "POLICY_TEST_PATIENCE";

/// The time limit for anything that should happen on a busy machine.
pub static WAIT_LIMIT: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = env::var(WAIT_LIMIT_VARIABLE).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
});

/// Calls `ask` until it returns a value. After [`WAIT_LIMIT`], fails with an error that names
/// `what`.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Result<T> {
    eventually_within(*WAIT_LIMIT, what, ask)
}

/// Like [`eventually`], with another time limit.
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

/// Repeats a system call that a signal ends. A call with a time limit is not restarted by the kernel,
/// also if the process was only stopped and continued.
pub fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
