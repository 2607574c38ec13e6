//! Relays a connection after a 101 response, the stream of an extended CONNECT, or a tunnel. Only its
//! two sides understand the protocol inside, which is usually WebSocket.

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

/// Buffer size per direction in bytes. Such connections are numerous and mostly idle.
const COPY_BUFFER_SIZE: usize = 8 * 1024;

/// Relays bytes in both directions until both sides have ended.
pub(crate) async fn relay_streams<A, B>(mut client: A, mut server: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (a, b) = (COPY_BUFFER_SIZE, COPY_BUFFER_SIZE);
    // Errors need no handling: the other side sees the connection end.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut server, a, b).await;
}
