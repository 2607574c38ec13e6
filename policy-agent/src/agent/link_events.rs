//! Link events of the agent's own network namespace. An interface that appears under a sandbox's
//! name is attached immediately, and not only at the next scan.
//!
//! Other namespaces are only scanned. A socket in a namespace would keep it, and what is in it,
//! alive after its deletion.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::{
    sync::Notify,
    time::{sleep, sleep_until},
};

use super::{
    link_backlog::{ChangedLinks, LinkBacklog},
    link_messages::KnownLinks,
};

// From linux/rtnetlink.h.
const RTMGRP_LINK: u32 = 1;

/// The links that have changed. The backlog is bounded however fast events arrive.
pub(super) struct LinkEvents {
    queue: Arc<LinkQueue>,
}

#[derive(Default)]
struct LinkQueue {
    backlog: Mutex<LinkBacklog>,
    changed: Notify,
    /// Whether no more events will arrive.
    has_ended: AtomicBool,
}

impl LinkEvents {
    /// Receives the events from now on, with a dedicated thread.
    ///
    /// # Errors
    /// The kernel provides no link events to this process.
    pub(super) fn subscribe() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
        let queue = Arc::new(LinkQueue::default());
        let receiving = Arc::downgrade(&queue);
        thread::Builder::new()
            .name("links".to_owned())
            .spawn(move || receive_loop(&socket, &receiving))?;
        Ok(Self { queue })
    }

    /// Waits until there are links to look at. `None` if no more events will arrive.
    pub(super) async fn next(&self) -> Option<ChangedLinks> {
        loop {
            let due = {
                let mut backlog = self.queue.lock();
                if let Some(changed) = backlog.take_due(Instant::now()) {
                    return Some(changed);
                }
                backlog.next_due()
            };
            if self.queue.has_ended.load(Ordering::Acquire) {
                return None;
            }
            match due {
                Some(due) => tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = self.queue.changed.notified() => {}
                },
                None => self.queue.changed.notified().await,
            }
        }
    }

    /// Lets the agent do other things after it has looked at links since `begin`. So links that
    /// change without a pause take half of a core at most.
    pub(super) async fn yield_after(begin: Instant) {
        sleep(begin.elapsed()).await;
    }
}

impl LinkQueue {
    /// A poisoned lock is usable: a lost name is found by the next scan.
    fn lock(&self) -> MutexGuard<'_, LinkBacklog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives until the queue is dropped, or the kernel reports an error.
fn receive_loop(socket: &OwnedFd, queue: &Weak<LinkQueue>) {
    let mut buffer = [0; 32 * 1024];
    let mut known = KnownLinks::default();
    loop {
        let received = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
        let Some(queue) = queue.upgrade() else { return };
        let is_new = match received {
            Ok(length) => queue.lock().add(known.changed_names(&buffer[..length])),
            Err(Errno::EINTR) => false,
            Err(Errno::ENOBUFS) => {
                known.clear();
                queue.lock().add_unknown();
                true
            }
            Err(_) => {
                queue.has_ended.store(true, Ordering::Release);
                return queue.changed.notify_one();
            }
        };
        if is_new {
            queue.changed.notify_one();
        }
    }
}
