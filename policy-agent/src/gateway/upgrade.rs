//! Relays a connection after a 101 response, the WebSocket of an HTTP/2 client, or a tunnel. Only its
//! two sides understand the new protocol, which is usually WebSocket.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
};
use tokio_util::io::InspectReader;

use super::{
    Gateway,
    access_log::{AccessLogEntry, ByteCount, RequestOutcome},
    backend::SandboxBackend,
};
use crate::net::upgraded_relay::relay_streams;

/// What exists as long as a relay runs.
pub(super) struct RelayGuard<C> {
    /// Counts as a request of the sandbox.
    #[expect(dead_code, reason = "it counts until it is dropped")]
    pub permit: OwnedSemaphorePermit,
    /// The connection to the service.
    #[expect(dead_code, reason = "it is kept until the relay ends")]
    pub connection: C,
    /// The request's log entry.
    pub log_entry: AccessLogEntry,
}

/// Resolves when a relay has to end: the sandbox has changed, or the agent stops.
pub(super) fn relay_cancelled(
    gateway: &Gateway,
    backend: &SandboxBackend,
) -> impl Future<Output = ()> + use<> {
    let retired = backend.retired().clone().cancelled_owned();
    let draining = gateway.drain.draining_owned();
    async move {
        tokio::select! {
            () = retired => {}
            () = draining => {}
        }
    }
}

/// The service's side of a connection after a 101 response.
///
/// # Errors
/// The connection has ended.
pub(super) async fn upgraded_service(
    service: OnUpgrade,
) -> Result<impl AsyncRead + AsyncWrite + Unpin, hyper::Error> {
    service.await.map(TokioIo::new)
}

/// Relays bytes in both directions until both sides have ended or the relay is cancelled.
pub(super) async fn relay_upgraded<C, S: AsyncRead + AsyncWrite + Unpin>(
    client: OnUpgrade,
    service: impl Future<Output = Result<S, hyper::Error>>,
    cancelled: impl Future<Output = ()>,
    mut held: RelayGuard<C>,
) {
    let (received, sent) = (held.log_entry.received(), ByteCount::default());
    let relayed = async {
        let (client, service) = tokio::try_join!(client, service)?;
        let client =
            InspectReader::new(TokioIo::new(client), |bytes: &[u8]| received.add(bytes.len()));
        let service = InspectReader::new(service, |bytes: &[u8]| sent.add(bytes.len()));
        relay_streams(client, service).await;
        Ok::<(), hyper::Error>(())
    };
    tokio::select! {
        _ = relayed => {}
        () = cancelled => {}
    }
    held.log_entry.add_sent(sent.get());
    held.log_entry.set_outcome(RequestOutcome::Complete);
}
