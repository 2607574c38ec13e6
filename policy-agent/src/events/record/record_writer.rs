//! Writes the record to its files and drops old entries, every few seconds and when the agent ends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::{FlowRecord, RecordFile, RecordedFlow};
use crate::agent::SandboxRegistry;

/// The interval between two writes. A crash of the agent loses this much.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);
/// Entries in one write. The others follow with the next, so that a flood costs no more.
const MAX_ENTRIES_PER_WRITE: usize = 4096;
/// How long an entry is kept after it was last seen.
const RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The same for a sandbox that has ended.
const ENDED_RETENTION: SignedDuration = SignedDuration::from_hours(1);

/// Writes the record of an agent.
pub struct RecordWriter {
    record: Arc<FlowRecord>,
    registry: Arc<SandboxRegistry>,
    progress: Mutex<WriteProgress>,
}

struct WriteProgress {
    file: RecordFile,
    /// The number of the latest change that is written.
    written: u64,
    has_failed: bool,
}

impl RecordWriter {
    /// Creates a writer. What is in the record now is not written again before it changes.
    #[must_use]
    pub fn new(record: Arc<FlowRecord>, registry: Arc<SandboxRegistry>, file: RecordFile) -> Self {
        let written = record.latest_change();
        let progress = Mutex::new(WriteProgress { file, written, has_failed: false });
        Self { record, registry, progress }
    }

    /// Starts a thread that writes forever.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(self: &Arc<Self>) -> Result<()> {
        let writer = Arc::clone(self);
        let write = move || loop {
            thread::sleep(WRITE_INTERVAL);
            writer.prune();
            writer.write(MAX_ENTRIES_PER_WRITE);
        };
        thread::Builder::new().name("record".to_owned()).spawn(write)?;
        Ok(())
    }

    /// Writes everything that has changed since the last write.
    pub fn write_all(&self) {
        self.write(usize::MAX);
    }

    fn prune(&self) {
        let now = Timestamp::now();
        let ago = |retention| now.checked_sub(retention).unwrap_or(Timestamp::MIN);
        self.record
            .prune(ago(RETENTION), ago(ENDED_RETENTION), |id| self.registry.get(id).is_some());
    }

    /// Writes at most so many entries, those that changed first.
    fn write(&self, limit: usize) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = self.record.latest_change();
        let changed = self.record.changed_entries(progress.written, limit);
        let Some((last, _)) = changed.last() else { return };
        let latest = latest.min(*last);
        let entries: Vec<RecordedFlow> = changed.into_iter().map(|(_, entry)| entry).collect();
        match progress.file.append(&entries, &self.record) {
            Ok(()) => (progress.written, progress.has_failed) = (latest, false),
            Err(error) => {
                if !progress.has_failed {
                    tracing::warn!("the record of flows is not written: {error:#}");
                }
                progress.has_failed = true;
            }
        }
    }
}
