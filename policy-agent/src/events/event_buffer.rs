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

use super::PolicyEvent;
use crate::agent::DataplaneControl;

/// Events that are kept for whoever asks later.
const BUFFER_CAPACITY: usize = 10_000;
/// Events that a follower may be behind before it loses some.
const SUBSCRIBER_CAPACITY: usize = 16_384;

/// Which events somebody wants.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Of this sandbox only.
    pub sandbox: Option<String>,
    /// Flows that pass, too.
    pub include_flows: bool,
}

impl EventFilter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &PolicyEvent) -> bool {
        (self.include_flows || event.is_denial())
            && self.sandbox.as_deref().is_none_or(|id| id == event.sandbox_id.as_str())
    }
}

/// The events.
pub struct EventBuffer {
    dataplane: Arc<dyn DataplaneControl>,
    buffered: Mutex<VecDeque<Arc<PolicyEvent>>>,
    sender: broadcast::Sender<Arc<PolicyEvent>>,
    subscribers: AtomicUsize,
    /// Followers who want flows that pass: the kernel reports those only while there are any.
    flow_subscribers: Mutex<usize>,
    /// Whether there are any, for who cannot wait for the kernel.
    wants_flows: AtomicBool,
    lost: AtomicU64,
}

impl EventBuffer {
    /// A hub without events.
    #[must_use]
    pub fn new(dataplane: Arc<dyn DataplaneControl>) -> Self {
        Self {
            dataplane,
            buffered: Mutex::default(),
            sender: broadcast::channel(SUBSCRIBER_CAPACITY).0,
            subscribers: AtomicUsize::new(0),
            flow_subscribers: Mutex::new(0),
            wants_flows: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Hands an event out.
    pub fn push(&self, event: PolicyEvent) {
        let event = Arc::new(event);
        let mut buffered = lock_unpoisoned(&self.buffered);
        if buffered.len() == BUFFER_CAPACITY {
            buffered.pop_front();
        }
        buffered.push_back(event.clone());
        drop(buffered);
        let _ = self.sender.send(event); // an error only means that nobody follows
    }

    /// The last events, oldest first.
    #[must_use]
    pub fn recent(&self, filter: &EventFilter) -> Vec<Arc<PolicyEvent>> {
        lock_unpoisoned(&self.buffered)
            .iter()
            .filter(|event| filter.matches(event))
            .cloned()
            .collect()
    }

    /// Follows the events from now on. Blocks: the kernel may have to be told.
    ///
    /// # Errors
    /// The kernel cannot be told.
    pub fn subscribe(self: &Arc<Self>, filter: EventFilter) -> Result<EventSubscription> {
        if filter.include_flows {
            self.add_flow_subscriber()?;
        }
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        Ok(EventSubscription {
            event_buffer: self.clone(),
            events: self.sender.subscribe(),
            filter,
        })
    }

    /// Whether somebody follows, who wants to see events at once.
    #[must_use]
    pub fn has_subscribers(&self) -> bool {
        self.subscribers.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody wants to see flows that pass.
    #[must_use]
    pub fn wants_flows(&self) -> bool {
        self.wants_flows.load(Ordering::Relaxed)
    }

    /// Counts events that nobody got to see because there were too many.
    pub fn add_lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// Events that came too fast, from the egress proxy or for a follower.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn add_flow_subscriber(&self) -> Result<()> {
        let mut flow_subscribers = lock_unpoisoned(&self.flow_subscribers);
        if *flow_subscribers == 0 {
            self.dataplane.set_flow_reporting(true)?;
        }
        *flow_subscribers += 1;
        self.wants_flows.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn remove_flow_subscriber(&self) {
        let mut flow_subscribers = lock_unpoisoned(&self.flow_subscribers);
        *flow_subscribers = flow_subscribers.saturating_sub(1);
        self.wants_flows.store(*flow_subscribers > 0, Ordering::Relaxed);
        if *flow_subscribers == 0
            && let Err(error) = self.dataplane.set_flow_reporting(false)
        {
            tracing::warn!("cannot stop the reporting of flows: {error:#}");
        }
    }
}

/// Somebody who follows the events.
pub struct EventSubscription {
    event_buffer: Arc<EventBuffer>,
    events: broadcast::Receiver<Arc<PolicyEvent>>,
    filter: EventFilter,
}

/// What a follower gets.
#[derive(Debug)]
pub enum SubscriptionItem {
    /// An event.
    Event(Arc<PolicyEvent>),
    /// So many events came too fast, of whatever sandbox.
    Lost(u64),
}

impl EventSubscription {
    /// The next event; `None` when there will be none any more.
    pub async fn next(&mut self) -> Option<SubscriptionItem> {
        loop {
            match self.events.recv().await {
                Ok(event) if self.filter.matches(&event) => {
                    return Some(SubscriptionItem::Event(event));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    self.event_buffer.lost.fetch_add(count, Ordering::Relaxed);
                    return Some(SubscriptionItem::Lost(count));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for EventSubscription {
    fn drop(&mut self) {
        self.event_buffer.subscribers.fetch_sub(1, Ordering::Relaxed);
        if self.filter.include_flows {
            let event_buffer = self.event_buffer.clone();
            // It takes some milliseconds, which a thread of the runtime must not wait.
            std::thread::spawn(move || event_buffer.remove_flow_subscriber());
        }
    }
}

/// What is locked cannot be half changed.
fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
