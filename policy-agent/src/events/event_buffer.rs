//! Buffers the most recent events and forwards new ones to subscribers.

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

/// Events that the buffer keeps.
const BUFFER_CAPACITY: usize = 10_000;
/// Events that a subscriber may lag behind before it loses some.
const SUBSCRIBER_CAPACITY: usize = 16_384;

/// Selects events for a subscriber.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only events of this sandbox.
    pub sandbox: Option<String>,
    /// Include allowed flows.
    pub include_flows: bool,
}

impl EventFilter {
    /// Returns whether the filter selects an event.
    #[must_use]
    pub fn matches(&self, event: &PolicyEvent) -> bool {
        (self.include_flows || event.is_denial())
            && self.sandbox.as_deref().is_none_or(|id| id == event.sandbox_id.as_str())
    }
}

/// The event buffer.
pub struct EventBuffer {
    dataplane: Arc<dyn DataplaneControl>,
    buffered: Mutex<VecDeque<Arc<PolicyEvent>>>,
    sender: broadcast::Sender<Arc<PolicyEvent>>,
    subscribers: AtomicUsize,
    /// Subscribers to allowed flows. The kernel reports allowed flows only while there are any.
    flow_subscribers: Mutex<usize>,
    /// Whether there are subscribers to allowed flows; readable without the lock, which is held
    /// during calls to the kernel.
    wants_flows: AtomicBool,
    lost: AtomicU64,
}

impl EventBuffer {
    /// Creates an empty buffer.
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

    /// Buffers an event and sends it to the subscribers.
    pub fn push(&self, event: PolicyEvent) {
        let event = Arc::new(event);
        let mut buffered = lock_unpoisoned(&self.buffered);
        if buffered.len() == BUFFER_CAPACITY {
            buffered.pop_front();
        }
        buffered.push_back(Arc::clone(&event));
        drop(buffered);
        let _ = self.sender.send(event); // fails only without subscribers
    }

    /// The buffered events that match `filter`, oldest first.
    #[must_use]
    pub fn recent(&self, filter: &EventFilter) -> Vec<Arc<PolicyEvent>> {
        lock_unpoisoned(&self.buffered)
            .iter()
            .filter(|event| filter.matches(event))
            .cloned()
            .collect()
    }

    /// Subscribes to new events. Blocks: the first subscriber to allowed flows makes the kernel
    /// report them.
    ///
    /// # Errors
    /// The kernel cannot be configured.
    pub fn subscribe(self: &Arc<Self>, filter: EventFilter) -> Result<EventSubscription> {
        if filter.include_flows {
            self.add_flow_subscriber()?;
        }
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        Ok(EventSubscription {
            event_buffer: Arc::clone(self),
            events: self.sender.subscribe(),
            filter,
        })
    }

    /// Returns whether there are subscribers, who expect events without delay.
    #[must_use]
    pub fn has_subscribers(&self) -> bool {
        self.subscribers.load(Ordering::Relaxed) > 0
    }

    /// Returns whether there are subscribers to allowed flows.
    #[must_use]
    pub fn wants_flows(&self) -> bool {
        self.wants_flows.load(Ordering::Relaxed)
    }

    /// Counts events that were dropped because there were too many.
    pub fn add_lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// The number of events that were lost because the egress proxy sent them too fast or a
    /// subscriber lagged behind.
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

/// A subscription to new events. Dropping it ends the subscription.
pub struct EventSubscription {
    event_buffer: Arc<EventBuffer>,
    events: broadcast::Receiver<Arc<PolicyEvent>>,
    filter: EventFilter,
}

/// What a subscriber receives.
#[derive(Debug)]
pub enum SubscriptionItem {
    /// An event.
    Event(Arc<PolicyEvent>),
    /// The subscriber lagged behind and lost this many events, of any sandbox.
    Lost(u64),
}

impl EventSubscription {
    /// Waits for the next event. `None` at the end of the stream.
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
            let event_buffer = Arc::clone(&self.event_buffer);
            // This blocks for some milliseconds, which a thread of the async runtime must not do.
            std::thread::spawn(move || event_buffer.remove_flow_subscriber());
        }
    }
}

/// Ignores poisoning: the locked values are never left in an inconsistent state.
fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
