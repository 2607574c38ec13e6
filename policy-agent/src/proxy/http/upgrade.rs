//! What follows an answer 101: another protocol, which only the two sides understand.

use std::sync::Arc;

use hyper::{
    body::Bytes,
    upgrade::{OnUpgrade, Parts, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::session::{Driver, Session};
use crate::proxy::{
    connection::carry,
    socket::{Stream, broken},
    upstream::{Carrier, Upstream},
};

/// Joins both sides once the HTTP library has let go of them. The session, and with it the claim,
/// lives as long.
pub async fn join(session: Arc<Session>, client: OnUpgrade, server: OnUpgrade, driver: Driver) {
    let both = async { Some((client.await.ok()?, server.await.ok()?)) };
    let both = tokio::select! {
        both = both => both,
        () = broken(&session.claim.client) => None,
    };
    let joined = both
        .and_then(|(client, server)| Some((parts::<Stream>(client)?, parts::<Carrier>(server)?)));
    let Some(((mut client, from_client), (mut carrier, from_server))) = joined else {
        return session.reset();
    };
    let sent = async {
        carrier.write_all(&from_client).await?;
        carrier.flush().await?;
        client.write_all(&from_server).await
    };
    if sent.await.is_err() {
        return session.reset();
    }
    let upstream = Upstream { socket: driver.socket(), carrier };
    carry(session.claim.means(), &session.claim.client, upstream).await;
}

/// The connection itself, and what was read from it already.
fn parts<T>(upgraded: Upgraded) -> Option<(T, Bytes)>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<T>>().ok()?;
    Some((io.into_inner(), read_buf))
}
