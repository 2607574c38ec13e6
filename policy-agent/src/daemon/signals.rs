//! The signals that the running agent handles.

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

/// Sets `stop` on SIGTERM and SIGINT, and prevents SIGHUP from ending the agent.
///
/// # Errors
/// The kernel refuses to deliver signals.
pub(crate) fn watch_signals(stop: watch::Sender<bool>) -> Result<JoinHandle<()>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let hang_up = listen(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            () = log_hangups(hang_up) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stop.send(true); // fails only if the agent is already stopping
        std::future::pending::<()>().await;
    }))
}

/// Logs for each SIGHUP that nothing is reloaded.
async fn log_hangups(mut hang_up: Signal) {
    while hang_up.recv().await.is_some() {
        tracing::info!("SIGHUP: nothing is reloaded; the configuration is read at start only");
    }
    std::future::pending().await
}
