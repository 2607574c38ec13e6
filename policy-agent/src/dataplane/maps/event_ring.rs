//! Reads the ring of events. The kernel does not wake the reader, so it must poll.

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use policy_common::{bpf_names, event::VerdictEvent};

use crate::dataplane::maps::{pin_directory::PinDirectory, pinned_maps::open_pinned_map};

/// Forwards the programs' log to the agent's log.
pub(crate) type ProgramLog = EbpfLogger<&'static dyn log::Log>;

/// The reader of the ring. There is only one.
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

    /// Passes all available events to `handle`, oldest first, and returns their number. Forwards
    /// the programs' log to the agent's log.
    pub fn drain_events(&mut self, mut handle: impl FnMut(&VerdictEvent)) -> usize {
        if let Some(log) = &mut self.program_log {
            log.flush();
        }
        let mut events = 0;
        while let Some(record) = self.ring.next() {
            if record.len() == size_of::<VerdictEvent>() {
                // SAFETY: the length is that of a `VerdictEvent`, which is plain old data. The
                // kernel aligns records to 8 bytes, and the read requires no alignment.
                let event = unsafe { record.as_ptr().cast::<VerdictEvent>().read_unaligned() };
                handle(&event);
                events += 1;
            }
        }
        events
    }
}
