//! Where events go: the last ones are kept, and whoever follows gets a copy.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use tokio::sync::broadcast;

use super::Record;
use crate::agent::Kernel;

/// Events that are kept for whoever asks later.
const KEPT: usize = 10_000;
/// Events that a follower may be behind before it loses some.
const BEHIND: usize = 16_384;

/// Which events somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this sandbox only.
    pub sandbox: Option<String>,
    /// Flows that pass, too.
    pub all: bool,
}

impl Filter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        (self.all || record.is_denial())
            && self.sandbox.as_deref().is_none_or(|id| id == record.sandbox_id.as_str())
    }
}

/// The events.
pub struct Hub {
    kernel: Arc<dyn Kernel>,
    kept: Mutex<VecDeque<Arc<Record>>>,
    live: broadcast::Sender<Arc<Record>>,
    followers: AtomicUsize,
    /// Followers who want flows that pass: the kernel reports those only while there are any.
    flow_followers: Mutex<usize>,
    /// Whether there are any, for who cannot wait for the kernel.
    wants_flows: AtomicBool,
    lost: AtomicU64,
}

impl Hub {
    /// A hub without events.
    #[must_use]
    pub fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self {
            kernel,
            kept: Mutex::default(),
            live: broadcast::channel(BEHIND).0,
            followers: AtomicUsize::new(0),
            flow_followers: Mutex::new(0),
            wants_flows: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Hands an event out.
    pub fn push(&self, record: Record) {
        let record = Arc::new(record);
        let mut kept = lock(&self.kept);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(record.clone());
        drop(kept);
        let _ = self.live.send(record); // an error only means that nobody follows
    }

    /// The last events, oldest first.
    #[must_use]
    pub fn recent(&self, filter: &Filter) -> Vec<Arc<Record>> {
        lock(&self.kept).iter().filter(|record| filter.wants(record)).cloned().collect()
    }

    /// Follows the events from now on. Blocks: the kernel may have to be told.
    ///
    /// # Errors
    /// The kernel cannot be told.
    pub fn follow(self: &Arc<Self>, filter: Filter) -> Result<Subscription> {
        if filter.all {
            self.count_flow_follower()?;
        }
        self.followers.fetch_add(1, Ordering::Relaxed);
        Ok(Subscription { hub: self.clone(), events: self.live.subscribe(), filter })
    }

    /// Whether somebody follows, who wants to see events at once.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody wants to see flows that pass.
    #[must_use]
    pub fn wants_flows(&self) -> bool {
        self.wants_flows.load(Ordering::Relaxed)
    }

    /// Counts events that nobody got to see because there were too many.
    pub fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// Events that came too fast, from the egress proxy or for a follower.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn count_flow_follower(&self) -> Result<()> {
        let mut followers = lock(&self.flow_followers);
        if *followers == 0 {
            self.kernel.report_flows(true)?;
        }
        *followers += 1;
        self.wants_flows.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn forget_flow_follower(&self) {
        let mut followers = lock(&self.flow_followers);
        *followers = followers.saturating_sub(1);
        self.wants_flows.store(*followers > 0, Ordering::Relaxed);
        if *followers == 0
            && let Err(error) = self.kernel.report_flows(false)
        {
            tracing::warn!("cannot stop the reporting of flows: {error:#}");
        }
    }
}

/// Somebody who follows the events.
pub struct Subscription {
    hub: Arc<Hub>,
    events: broadcast::Receiver<Arc<Record>>,
    filter: Filter,
}

/// What a follower gets.
#[derive(Debug)]
pub enum News {
    /// An event.
    Event(Arc<Record>),
    /// So many events came too fast, of whatever sandbox.
    Lost(u64),
}

impl Subscription {
    /// The next event; `None` when there will be none any more.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            match self.events.recv().await {
                Ok(record) if self.filter.wants(&record) => return Some(News::Event(record)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    self.hub.lost.fetch_add(count, Ordering::Relaxed);
                    return Some(News::Lost(count));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.followers.fetch_sub(1, Ordering::Relaxed);
        if self.filter.all {
            let hub = self.hub.clone();
            // It takes some milliseconds, which a thread of the runtime must not wait.
            std::thread::spawn(move || hub.forget_flow_follower());
        }
    }
}

/// What is locked cannot be half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
