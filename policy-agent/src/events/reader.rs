//! Polls the kernel's ring of events. Waking up is what costs, not reading: see `EVENTS` in
//! `policy-common`.

use std::{sync::Arc, thread, time::Duration};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

use super::{Hub, Record};
use crate::{agent::Ledger, dataplane::EventReader};

/// Pause while somebody follows.
const FOLLOWED: Duration = Duration::from_millis(5);
/// Pause otherwise: the ring holds more than what all sandboxes may write in that time.
const ALONE: Duration = Duration::from_millis(100);

/// Reads events for ever, on a thread of its own.
///
/// # Errors
/// The thread cannot be made.
pub fn read(mut ring: EventReader, hub: Arc<Hub>, ledger: Arc<Ledger>) -> Result<()> {
    let poll = move || loop {
        let boot = boot();
        ring.drain(|event| {
            let time = boot + SignedDuration::from_nanos_i128(event.time_ns.into());
            if let Some(record) = Record::of(event, time, &ledger) {
                hub.push(record);
            }
        });
        thread::sleep(if hub.is_followed() { FOLLOWED } else { ALONE });
    };
    thread::Builder::new().name("events".to_owned()).spawn(poll)?;
    Ok(())
}

/// When the kernel's clock of events was zero.
fn boot() -> Timestamp {
    let since = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let now = Timestamp::now();
    SignedDuration::try_from(since)
        .ok()
        .and_then(|since| now.checked_sub(since).ok())
        .unwrap_or(now)
}
