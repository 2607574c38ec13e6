//! Relays a connection after a 101 response, or the stream of an extended CONNECT. Only its two sides
//! understand the protocol inside, which is usually WebSocket.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;

use super::session::InterceptedSession;
use crate::proxy::socket::wait_for_reset;

/// Buffer size per direction in bytes. Such connections are often idle.
const COPY_BUFFER_SIZE: usize = 8 * 1024;

/// Relays bytes in both directions. The session, and with it the admitted connection, lives until
/// the relay ends.
pub(super) async fn relay_upgraded(
    session: Arc<InterceptedSession>,
    client: OnUpgrade,
    server: OnUpgrade,
) {
    let relayed = async {
        let (client, server) = tokio::try_join!(client, server)?;
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        // Errors need no handling: the other side sees the connection end.
        let _ = copy_bidirectional_with_sizes(
            &mut client,
            &mut server,
            COPY_BUFFER_SIZE,
            COPY_BUFFER_SIZE,
        )
        .await;
        Ok::<(), hyper::Error>(())
    };
    tokio::select! {
        _ = relayed => {}
        // A reset of a half-closed side would go unnoticed otherwise.
        () = wait_for_reset(&session.admitted.client) => {}
    }
}
