//! Polls the kernel's ring buffer of events. Wakeups are expensive, reading is not: see `EVENTS` in
//! `policy-common`.

use std::{sync::Arc, thread, time::Duration};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

use super::{EventBuffer, PolicyEvent};
use crate::{agent::EventAttribution, dataplane::EventRingReader};

/// The poll interval while there are subscribers.
const SUBSCRIBED_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The poll interval otherwise. The ring holds more than all sandboxes may write in that time.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Starts a thread that reads events forever.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn_reader(
    mut ring: EventRingReader,
    event_buffer: Arc<EventBuffer>,
    attribution: Arc<EventAttribution>,
) -> Result<()> {
    let poll = move || loop {
        let booted_at = boot_time();
        ring.drain_events(|event| {
            let time = booted_at + SignedDuration::from_nanos_i128(event.time_ns.into());
            if let Some(policy_event) = PolicyEvent::from_event(event, time, &attribution) {
                event_buffer.push(policy_event);
            }
        });
        thread::sleep(if event_buffer.has_subscribers() {
            SUBSCRIBED_POLL_INTERVAL
        } else {
            IDLE_POLL_INTERVAL
        });
    };
    thread::Builder::new().name("events".to_owned()).spawn(poll)?;
    Ok(())
}

/// The time at which the kernel's event clock was zero.
fn boot_time() -> Timestamp {
    let since = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let now = Timestamp::now();
    SignedDuration::try_from(since)
        .ok()
        .and_then(|since| now.checked_sub(since).ok())
        .unwrap_or(now)
}
