//! Connections that the proxy has finished with, and the sandbox has not.
//!
//! A sandbox that stops acknowledging would leave the kernel a socket without an owner, with unsent
//! bytes, for minutes. So the proxy keeps the socket, and with it the sandbox's place for one more
//! connection, until both sides have closed it.

use std::{net::Shutdown, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{
    sandbox_proxy::SandboxProxy,
    socket::{CloseProgress, SharedSocket, close_progress, reset_connection},
};

/// How long a sandbox may acknowledge none of the last bytes, or keep its side open after all of
/// them.
const PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// Pauses between two looks at the socket: epoll does not report acknowledgements.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_secs(1)];

/// A connection that its [`SandboxProxy`] tracks until it is dropped.
pub(super) struct ClosingConnection {
    sandbox_proxy: Arc<SandboxProxy>,
    id: u64,
    client: SharedSocket,
}

impl ClosingConnection {
    pub(super) const fn new(
        sandbox_proxy: Arc<SandboxProxy>,
        id: u64,
        client: SharedSocket,
    ) -> Self {
        Self { sandbox_proxy, id, client }
    }

    /// Closes the connection, in the background if the sandbox has to do its part.
    pub(super) fn finish(self) {
        if close_progress(&self.client) == CloseProgress::Ended {
            return;
        }
        let socket = SockRef::from(&*self.client);
        let closing = socket
            .shutdown(Shutdown::Write)
            // The kernel ends a connection of which nothing is acknowledged, whoever owns it.
            .and_then(|()| socket.set_tcp_user_timeout(Some(PEER_TIMEOUT)));
        match Handle::try_current() {
            Ok(runtime) if closing.is_ok() => drop(runtime.spawn(self.wait_for_peer())),
            _ => reset_connection(&self.client),
        }
    }

    async fn wait_for_peer(self) {
        let [mut pause, longest] = PAUSES;
        let mut acknowledged_at = None;
        loop {
            sleep(pause).await;
            pause = longest.min(2 * pause);
            match close_progress(&self.client) {
                CloseProgress::Ended => return,
                CloseProgress::Unacknowledged => {}
                CloseProgress::PeerOpen => {
                    let since = acknowledged_at.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PEER_TIMEOUT {
                        return reset_connection(&self.client);
                    }
                }
            }
        }
    }
}

impl Drop for ClosingConnection {
    fn drop(&mut self) {
        self.sandbox_proxy.remove_connection(self.id);
    }
}
