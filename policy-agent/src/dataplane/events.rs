//! Reads the ring of events. The kernel does not wake the reader: it has to poll.

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use policy_common::{event::Event, name};

use super::{pins::Pins, programs::ProgramLog, sandboxes::map};

/// The reading end of the ring; there is one.
pub struct EventReader {
    ring: RingBuf<MapData>,
    log: Option<ProgramLog>,
}

impl EventReader {
    pub(super) fn open(pins: &Pins, log: Option<ProgramLog>) -> Result<Self> {
        Ok(Self { ring: map(&pins.map(name::EVENTS))?.try_into()?, log })
    }

    /// Hands over every event that is there, oldest first: how many there were. What the programs
    /// have logged goes to the agent's log.
    pub fn drain(&mut self, mut handle: impl FnMut(&Event)) -> usize {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        let mut events = 0;
        while let Some(record) = self.ring.next() {
            if record.len() == size_of::<Event>() {
                // SAFETY: the length is that of an Event, which is plain old data; the kernel
                // aligns records to 8 bytes, and the read asks for no alignment.
                let event = unsafe { record.as_ptr().cast::<Event>().read_unaligned() };
                handle(&event);
                events += 1;
            }
        }
        events
    }
}
