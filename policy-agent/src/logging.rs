//! The agent's log. Lines go through a bounded queue to a thread of their own, so that nobody waits
//! for whoever reads stderr: what does not fit is dropped, counted, and told of later.

use std::{
    io::{self, Write},
    mem,
    panic::{self, PanicHookInfo},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tracing::Metadata;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Bytes that wait to be written, at most. As much again may be on its way.
const QUEUE: usize = 1 << 20;
/// The part of them that access logs may take: visitors of a sandbox must not crowd out the agent's own lines.
const FOR_ACCESS: usize = QUEUE / 4 * 3;
/// The target of access logs.
pub const ACCESS: &str = "access";
/// How long lines are gathered, so that many are written at once.
const GATHER: Duration = Duration::from_millis(2);
/// How long an agent that stops waits for its last lines to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is logged unless `RUST_LOG` says otherwise. What libraries think of a sandbox's messages
/// would let it flood the log.
const LOGGED: &str = "info,hickory_net=error,hickory_proto=error,hickory_resolver=error,\
                      hyper=error,rustls=error,tokio_rustls=error";

/// The queue of lines. A clone is the same queue.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something changed in the queue.
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// What waits, as it will be written.
    text: Vec<u8>,
    /// Lines in it.
    lines: u64,
    /// The thread is writing what it took.
    is_writing: bool,
}

impl Log {
    /// Logs everything to stderr from now on, panics included.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn to_stderr() -> Result<Self> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
        let terminal = io::IsTerminal::is_terminal(&io::stderr());
        let log = Self::write_to(io::stderr())?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(terminal)
            .with_writer(log.clone())
            .init();
        panic::set_hook(Box::new(log_panic));
        Ok(log)
    }

    /// A log with a thread that writes its lines there.
    fn write_to(output: impl Write + Send + 'static) -> Result<Self> {
        let log = Self::default();
        let writer = log.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write_for_ever(output)).context("cannot start a thread")?;
        Ok(log)
    }

    /// Lines that were dropped so far, since those before them were not read in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but not long.
    pub fn flush(&self) {
        let pending = |queue: &mut Queue| queue.is_writing || !queue.text.is_empty();
        // Whether in time or not: there is nobody left to tell.
        drop(self.0.changed.wait_timeout_while(self.queue(), LAST_WORDS, pending));
    }

    /// Takes a line, unless those that wait are too many.
    fn push(&self, line: &[u8], limit: usize) {
        let mut queue = self.queue();
        if queue.text.len() + line.len() > limit {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = queue.text.is_empty();
        queue.text.extend_from_slice(line);
        queue.lines += 1;
        drop(queue);
        if was_empty {
            self.0.changed.notify_all();
        }
    }

    fn write_for_ever(self, mut output: impl Write) {
        let mut told = 0;
        let mut text = Vec::new();
        loop {
            let lines = self.take(&mut text);
            if output.write_all(&text).and_then(|()| output.flush()).is_err() {
                self.0.dropped.fetch_add(lines, Ordering::Relaxed);
            }
            self.queue().is_writing = false;
            self.0.changed.notify_all();
            let dropped = self.dropped();
            if dropped > told {
                let lines = dropped - told;
                tracing::warn!(lines, "lines of the log were dropped: stderr was not read in time");
                told = dropped;
            }
        }
    }

    /// Waits for lines and takes all that there are: how many.
    fn take(&self, text: &mut Vec<u8>) -> u64 {
        text.clear();
        let idle = |queue: &mut Queue| queue.text.is_empty();
        drop(self.0.changed.wait_while(self.queue(), idle));
        thread::sleep(GATHER);
        let mut queue = self.queue();
        mem::swap(&mut queue.text, text);
        queue.is_writing = true;
        mem::take(&mut queue.lines)
    }

    /// Nothing panics while it is locked.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts lines into the queue, each of which comes in one call.
pub struct LineWriter {
    log: Log,
    limit: usize,
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.push(line, self.limit);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = LineWriter;

    fn make_writer(&self) -> LineWriter {
        LineWriter { log: self.clone(), limit: QUEUE }
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> LineWriter {
        let limit = if line.target() == ACCESS { FOR_ACCESS } else { QUEUE };
        LineWriter { log: self.clone(), limit }
    }
}

/// As the standard library would write it, which would wait for whoever reads.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    tracing::error!("thread {thread}: {panic}");
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that waits to be told how much it may read.
    struct Slow {
        go: mpsc::Receiver<()>,
        read: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.read.send(text.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Log, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let ((go, wait), (read, text)) = (mpsc::channel(), mpsc::channel());
        (Log::write_to(Slow { go: wait, read }).expect("a thread"), go, text)
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (log, go, text) = slow();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        // Some are taken at once; then the queue fills up.
        for _ in 0..3 * QUEUE / line.len() {
            log.push(&line, QUEUE);
        }
        let dropped = log.dropped();
        assert!(dropped >= (QUEUE / line.len()) as u64, "{dropped}");
        let mut bytes = 0;
        let all = (3 * QUEUE / line.len()) as u64 - dropped;
        while bytes < all as usize * line.len() {
            go.send(()).expect("the log goes on");
            bytes += text.recv().expect("text").len();
        }
        assert_eq!(bytes, all as usize * line.len(), "what is not dropped is whole");
        assert_eq!(log.dropped(), dropped);
    }

    #[test]
    fn access_logs_leave_room_for_the_agents_own_lines() {
        let (log, _go, _text) = slow();
        // The first may be on its way already.
        while log.dropped() == 0 {
            log.push(&[b'x'; 1024], FOR_ACCESS);
        }
        log.push(b"its own\n", QUEUE);
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn who_stops_waits_for_the_last_line_if_somebody_reads() {
        let (log, go, text) = slow();
        log.push(b"the last\n", QUEUE);
        go.send(()).expect("the log goes on");
        log.flush();
        assert_eq!(text.try_recv(), Ok(b"the last\n".to_vec()));
    }

    #[test]
    fn who_stops_does_not_wait_for_ever() {
        let (log, _go, text) = slow();
        log.push(b"nobody reads this\n", QUEUE);
        log.flush();
        assert_eq!(text.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn a_reader_that_went_costs_lines_only() {
        let (log, go, text) = slow();
        drop((go, text));
        log.push(b"one\n", QUEUE);
        log.flush();
        log.push(b"two\n", QUEUE);
        log.flush();
        assert_eq!(log.dropped(), 2);
    }
}
