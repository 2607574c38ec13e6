//! What follows an answer 101: another protocol (WebSocket, most likely), which only the two sides
//! understand.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional_with_sizes, sync::OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Bytes that are held of each direction, at the most and at the least: such connections are many
/// and mostly rest.
const COPY_BUFFER_SIZE: usize = 8 * 1024;

/// Carries bytes both ways until both sides have ended, or the sandbox has.
pub async fn relay_upgraded(
    client: OnUpgrade,
    service: OnUpgrade,
    retired: CancellationToken,
    permit: OwnedSemaphorePermit,
) {
    let _permit = permit;
    let relayed = retired.run_until_cancelled(async {
        let (client, service) = tokio::try_join!(client, service)?;
        let (mut client, mut service) = (TokioIo::new(client), TokioIo::new(service));
        // Who breaks off is not the gateway's to judge: the other side sees the end.
        let _ = copy_bidirectional_with_sizes(
            &mut client,
            &mut service,
            COPY_BUFFER_SIZE,
            COPY_BUFFER_SIZE,
        )
        .await;
        Ok::<(), hyper::Error>(())
    });
    let _ = relayed.await;
}
