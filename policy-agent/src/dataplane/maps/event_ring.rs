//! Reads the ring of events. The kernel does not wake the reader: it has to poll.

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use policy_common::{bpf_names, event::VerdictEvent};

use crate::dataplane::maps::{endpoint_maps::open_pinned_map, pin_directory::PinDirectory};

/// Writes what the programs log to the agent's own log.
pub(crate) type ProgramLog = EbpfLogger<&'static dyn log::Log>;

/// The reading end of the ring; there is one.
pub struct EventRingReader {
    ring: RingBuf<MapData>,
    program_log: Option<ProgramLog>,
}

impl EventRingReader {
    pub(in crate::dataplane) fn open(pins: &PinDirectory, log: Option<ProgramLog>) -> Result<Self> {
        Ok(Self {
            ring: open_pinned_map(&pins.map_path(bpf_names::EVENTS))?.try_into()?,
            program_log: log,
        })
    }

    /// Hands over every event that is there, oldest first: how many there were. What the programs
    /// have logged goes to the agent's log.
    pub fn drain_events(&mut self, mut handle: impl FnMut(&VerdictEvent)) -> usize {
        if let Some(log) = &mut self.program_log {
            log.flush();
        }
        let mut events = 0;
        while let Some(record) = self.ring.next() {
            if record.len() == size_of::<VerdictEvent>() {
                // SAFETY: the length is that of an Event, which is plain old data; the kernel
                // aligns records to 8 bytes, and the read asks for no alignment.
                let event = unsafe { record.as_ptr().cast::<VerdictEvent>().read_unaligned() };
                handle(&event);
                events += 1;
            }
        }
        events
    }
}
