//! Relays a connection after a 101 response, or the WebSocket of an HTTP/2 client. Only its two
//! sides understand the new protocol, which is usually WebSocket.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional_with_sizes, sync::OwnedSemaphorePermit};

use super::response_body::ResponseConnection;

/// Buffer size per direction in bytes. Such connections are numerous and mostly idle.
const COPY_BUFFER_SIZE: usize = 8 * 1024;

/// Relays bytes in both directions until both sides have ended or the relay is cancelled.
pub(super) async fn relay_upgraded(
    client: OnUpgrade,
    service: OnUpgrade,
    cancelled: impl Future<Output = ()>,
    held: (OwnedSemaphorePermit, ResponseConnection),
) {
    let _held = held;
    let relayed = async {
        let (client, service) = tokio::try_join!(client, service)?;
        let (mut client, mut service) = (TokioIo::new(client), TokioIo::new(service));
        // Errors need no handling: the other side sees the connection end.
        let _ = copy_bidirectional_with_sizes(
            &mut client,
            &mut service,
            COPY_BUFFER_SIZE,
            COPY_BUFFER_SIZE,
        )
        .await;
        Ok::<(), hyper::Error>(())
    };
    tokio::select! {
        _ = relayed => {}
        () = cancelled => {}
    }
}
