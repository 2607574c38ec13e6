//! The runtime of commands that use the agent's API.

use anyhow::{Context as _, Result};

/// Runs a future to completion.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(work))
}
