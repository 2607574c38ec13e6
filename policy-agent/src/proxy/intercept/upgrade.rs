//! Relays a connection after a 101 response, or the stream of an extended CONNECT. Only its two sides
//! understand the protocol inside, which is usually WebSocket.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::session::InterceptedSession;
use crate::{net::upgraded_relay::relay_streams, proxy::socket::wait_for_reset};

/// Relays bytes in both directions. The session, and with it the admitted connection, lives until
/// the relay ends.
pub(super) async fn relay_upgraded(
    session: Arc<InterceptedSession>,
    client: OnUpgrade,
    server: OnUpgrade,
) {
    let relayed = async {
        let (client, server) = tokio::try_join!(client, server)?;
        relay_streams(TokioIo::new(client), TokioIo::new(server)).await;
        Ok::<(), hyper::Error>(())
    };
    tokio::select! {
        _ = relayed => {}
        // A reset of a half-closed side would go unnoticed otherwise.
        () = wait_for_reset(&session.admitted.client) => {}
    }
}
