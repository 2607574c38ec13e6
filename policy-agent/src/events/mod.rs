//! What the kernel tells about packets: read, given names, kept for a while, and handed to whoever
//! follows.

mod event_buffer;
mod policy_event;
mod ring_reader;

pub use self::{
    event_buffer::{EventBuffer, EventFilter, EventSubscription, SubscriptionItem},
    policy_event::PolicyEvent,
    ring_reader::spawn_reader,
};
