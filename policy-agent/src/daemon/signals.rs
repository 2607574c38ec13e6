//! The signals that the running agent handles.

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

/// Sets `stop` on SIGTERM and SIGINT.
///
/// # Errors
/// The kernel refuses to deliver signals.
pub(crate) fn watch_signals(stop: watch::Sender<bool>) -> Result<JoinHandle<()>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stop.send(true); // fails only if the agent is already stopping
        std::future::pending::<()>().await;
    }))
}

/// SIGHUP, which no longer ends the agent from here on. Those that arrive before they are awaited
/// count as one.
///
/// # Errors
/// The kernel refuses to deliver signals.
pub(crate) fn watch_hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).context("cannot listen for signals")
}
