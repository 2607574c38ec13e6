//! Buffers the most recent events and forwards new ones to subscribers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use jiff::Timestamp;
use tokio::sync::broadcast;

use super::{FlowRecord, PolicyEvent};
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
    /// Include flows that pass, not only what is denied, or would be.
    pub include_flows: bool,
    /// Only events with this reason, by its label.
    pub reason: Option<&'static str>,
    /// Only events from this time on.
    pub since: Option<Timestamp>,
    /// Of the buffered events, only this many of the most recent ones.
    pub last: Option<usize>,
}

impl EventFilter {
    /// Returns whether the filter selects an event.
    #[must_use]
    pub fn matches(&self, event: &PolicyEvent) -> bool {
        (self.include_flows || event.concerns_denial())
            && self.sandbox.as_deref().is_none_or(|id| id == event.sandbox_id.as_str())
            && self.reason.is_none_or(|label| label == event.reason)
            && self.since.is_none_or(|since| since <= event.time)
    }

    /// Whether a subscriber first gets the buffered events.
    fn wants_backlog(&self) -> bool {
        self.since.is_some() || self.last.is_some()
    }
}

/// The event buffer.
pub struct EventBuffer {
    dataplane: Arc<dyn DataplaneControl>,
    record: Arc<FlowRecord>,
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
    /// Creates an empty buffer. Events also go to the record.
    #[must_use]
    pub fn new(dataplane: Arc<dyn DataplaneControl>, record: Arc<FlowRecord>) -> Self {
        Self {
            dataplane,
            record,
            buffered: Mutex::default(),
            sender: broadcast::channel(SUBSCRIBER_CAPACITY).0,
            subscribers: AtomicUsize::new(0),
            flow_subscribers: Mutex::new(0),
            wants_flows: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Records and buffers an event, and sends it to the subscribers.
    pub fn push(&self, event: PolicyEvent) {
        self.record.observe(&event);
        let event = Arc::new(event);
        let mut buffered = lock_unpoisoned(&self.buffered);
        if buffered.len() == BUFFER_CAPACITY {
            buffered.pop_front();
        }
        buffered.push_back(Arc::clone(&event));
        // Sent under the lock, so that a new subscriber gets each event once: from the buffer or live.
        let _ = self.sender.send(event); // fails only without subscribers
    }

    /// The record of flows and denials.
    #[must_use]
    pub fn record(&self) -> &Arc<FlowRecord> {
        &self.record
    }

    /// The buffered events that match `filter`, oldest first.
    #[must_use]
    pub fn recent(&self, filter: &EventFilter) -> Vec<Arc<PolicyEvent>> {
        matching_events(&lock_unpoisoned(&self.buffered), filter)
    }

    /// Subscribes to new events. If the filter has a time or a number, the buffered events come
    /// first. Blocks: the first subscriber to allowed flows makes the kernel report them.
    ///
    /// # Errors
    /// The kernel cannot be configured.
    pub fn subscribe(self: &Arc<Self>, filter: EventFilter) -> Result<EventSubscription> {
        let flow_reports = match filter.include_flows {
            true => Some(self.request_flow_reports()?),
            false => None,
        };
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        let buffered = lock_unpoisoned(&self.buffered);
        let events = self.sender.subscribe();
        let backlog = match filter.wants_backlog() {
            true => matching_events(&buffered, &filter),
            false => Vec::new(),
        };
        drop(buffered);
        let event_buffer = Arc::clone(self);
        let backlog = backlog.into();
        Ok(EventSubscription { event_buffer, backlog, events, filter, _flow_reports: flow_reports })
    }

    /// Makes the kernel report flows that pass, until the guard is dropped. Blocks.
    ///
    /// # Errors
    /// The kernel cannot be configured.
    pub fn request_flow_reports(self: &Arc<Self>) -> Result<FlowReportsGuard> {
        self.add_flow_subscriber()?;
        Ok(FlowReportsGuard { event_buffer: Arc::clone(self) })
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
    /// Buffered events that come before the new ones.
    backlog: VecDeque<Arc<PolicyEvent>>,
    events: broadcast::Receiver<Arc<PolicyEvent>>,
    filter: EventFilter,
    _flow_reports: Option<FlowReportsGuard>,
}

/// While it exists, the kernel reports flows that pass.
pub struct FlowReportsGuard {
    event_buffer: Arc<EventBuffer>,
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
        if let Some(event) = self.backlog.pop_front() {
            return Some(SubscriptionItem::Event(event));
        }
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
    }
}

impl Drop for FlowReportsGuard {
    fn drop(&mut self) {
        let event_buffer = Arc::clone(&self.event_buffer);
        // This blocks for some milliseconds, which a thread of the async runtime must not do.
        std::thread::spawn(move || event_buffer.remove_flow_subscriber());
    }
}

/// The events that a filter selects, oldest first.
fn matching_events(
    events: &VecDeque<Arc<PolicyEvent>>,
    filter: &EventFilter,
) -> Vec<Arc<PolicyEvent>> {
    let newest_first = events.iter().rev().filter(|event| filter.matches(event));
    let mut selected: Vec<_> =
        newest_first.take(filter.last.unwrap_or(usize::MAX)).cloned().collect();
    selected.reverse();
    selected
}

/// Ignores poisoning: the locked values are never left in an inconsistent state.
fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
