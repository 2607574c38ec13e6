//! Policy events from the kernel and the egress proxy: read, translated, buffered, and forwarded to
//! subscribers.

mod event_buffer;
mod policy_event;
mod record;
mod ring_reader;

pub use self::{
    event_buffer::{
        EventBuffer, EventFilter, EventSubscription, FlowReportsGuard, SubscriptionItem,
    },
    policy_event::PolicyEvent,
    record::{
        FlowDecision, FlowQuery, FlowRecord, FlowSelection, RecordFile, RecordWriter, RecordedFlow,
    },
    ring_reader::spawn_reader,
};
