//! Speaking rtnetlink in the calling thread's network namespace.

use anyhow::Result;
use rtnetlink::Handle;
use tokio::runtime;

/// Runs `work` with a netlink socket.
pub fn speak<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        work(netlink).await
    })
}
