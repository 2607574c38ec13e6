//! Relays a connection after a 101 response. Only its two sides understand the new protocol.

use std::sync::Arc;

use hyper::{
    body::Bytes,
    upgrade::{OnUpgrade, Parts, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::http_session::{HttpSession, UpstreamDriver};
use crate::proxy::{
    serve_connection::relay,
    socket::{SharedTcpStream, wait_for_reset},
    upstream::{UpstreamConnection, UpstreamIo},
};

/// Relays between both sides once the HTTP library has released them. The session, and with it the
/// admitted connection, lives until the relay ends.
pub(super) async fn relay_upgraded(
    session: Arc<HttpSession>,
    client: OnUpgrade,
    server: OnUpgrade,
    driver: UpstreamDriver,
) {
    let both = async { Some((client.await.ok()?, server.await.ok()?)) };
    let both = tokio::select! {
        both = both => both,
        () = wait_for_reset(&session.admitted.client) => None,
    };
    let joined = both.and_then(|(client, server)| {
        Some((into_io::<SharedTcpStream>(client)?, into_io::<UpstreamIo>(server)?))
    });
    let Some(((mut client, from_client), (mut io, from_server))) = joined else {
        return session.reset();
    };
    let sent = async {
        io.write_all(&from_client).await?;
        io.flush().await?;
        client.write_all(&from_server).await
    };
    if sent.await.is_err() {
        return session.reset();
    }
    let upstream = UpstreamConnection { socket: driver.socket(), io };
    relay(session.admitted.context(), &session.admitted.client, upstream).await;
}

/// The connection, and the bytes already read from it.
fn into_io<T>(upgraded: Upgraded) -> Option<(T, Bytes)>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<T>>().ok()?;
    Some((io.into_inner(), read_buf))
}
