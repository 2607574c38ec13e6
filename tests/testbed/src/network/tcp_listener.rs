//! TCP listeners of test servers.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
};

use anyhow::{Context as _, Result};

use crate::wait::eventually;

/// Binds a non-blocking listener in the calling thread's namespace. Waits while the address is in
/// use: a child process that another thread is starting holds a listener that was just closed,
/// until it executes its program.
pub(crate) fn bind_listener(at: impl Into<SocketAddr>) -> Result<TcpListener> {
    let at = at.into();
    let bound = eventually(&format!("TCP {at} is free"), || match TcpListener::bind(at) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        bound => Some(bound),
    })?;
    let listener = bound.with_context(|| format!("TCP {at}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
