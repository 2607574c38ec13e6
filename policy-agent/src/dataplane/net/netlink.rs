//! rtnetlink requests in the calling thread's network namespace.

use anyhow::Result;
use rtnetlink::{Error, Handle};
use tokio::runtime;

/// Runs `work` with a netlink socket.
pub(crate) fn with_handle<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    run_with_handle(false, work)
}

/// The same with a socket on which the kernel filters what it lists by the attributes of the request
/// (`NETLINK_GET_STRICT_CHK`, Linux 4.20).
pub(crate) fn with_strict_handle<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    run_with_handle(true, work)
}

/// Whether the kernel refused a request with one of these errors.
pub(crate) fn is_refusal(error: &Error, errnos: &[i32]) -> bool {
    matches!(error, Error::NetlinkError(error) if errnos.contains(&-error.raw_code()))
}

fn run_with_handle<T>(strictly: bool, work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, netlink, _) = if strictly {
            rtnetlink::new_connection_with_strict_check()?
        } else {
            rtnetlink::new_connection()?
        };
        tokio::spawn(connection);
        work(netlink).await
    })
}
