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
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// The part of them that access logs may take: visitors of a sandbox must not crowd out the agent's own lines.
const MAX_ACCESS_BYTES: usize = MAX_QUEUED_BYTES / 4 * 3;
/// The target of access logs.
pub const ACCESS_TARGET: &str = "access";
/// How long lines are gathered, so that many are written at once.
const BATCH_DELAY: Duration = Duration::from_millis(2);
/// How long an agent that stops waits for its last lines to be read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What is logged unless `RUST_LOG` says otherwise. What libraries think of a sandbox's messages
/// would let it flood the log.
const DEFAULT_FILTER: &str = "info,hickory_net=error,hickory_proto=error,hickory_resolver=error,\
                      hyper=error,rustls=error,tokio_rustls=error";

/// The queue of lines. A clone is the same queue.
#[derive(Clone, Debug, Default)]
pub struct LogSink(Arc<LogSinkShared>);

#[derive(Debug, Default)]
struct LogSinkShared {
    queue: Mutex<LogQueue>,
    /// Something changed in the queue.
    queue_changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct LogQueue {
    /// What waits, as it will be written.
    text: Vec<u8>,
    /// Lines in it.
    lines: u64,
    /// The thread is writing what it took.
    is_writing: bool,
}

impl LogSink {
    /// Logs everything to stderr from now on, panics included.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn init_stderr() -> Result<Self> {
        let filter =
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
        let terminal = io::IsTerminal::is_terminal(&io::stderr());
        let sink = Self::spawn_writer(io::stderr())?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(terminal)
            .with_writer(sink.clone())
            .init();
        panic::set_hook(Box::new(log_panic));
        Ok(sink)
    }

    /// A log with a thread that writes its lines there.
    fn spawn_writer(output: impl Write + Send + 'static) -> Result<Self> {
        let sink = Self::default();
        let writer = sink.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write_loop(output)).context("cannot start a thread")?;
        Ok(sink)
    }

    /// Lines that were dropped so far, since those before them were not read in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but not long.
    pub fn flush(&self) {
        let pending = |queue: &mut LogQueue| queue.is_writing || !queue.text.is_empty();
        // Whether in time or not: there is nobody left to tell.
        drop(self.0.queue_changed.wait_timeout_while(self.lock_queue(), FLUSH_TIMEOUT, pending));
    }

    /// Takes a line, unless those that wait are too many.
    fn push_line(&self, line: &[u8], limit: usize) {
        let mut queue = self.lock_queue();
        if queue.text.len() + line.len() > limit {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = queue.text.is_empty();
        queue.text.extend_from_slice(line);
        queue.lines += 1;
        drop(queue);
        if was_empty {
            self.0.queue_changed.notify_all();
        }
    }

    fn write_loop(self, mut output: impl Write) {
        let mut reported = 0;
        let mut text = Vec::new();
        loop {
            let lines = self.take_lines(&mut text);
            if output.write_all(&text).and_then(|()| output.flush()).is_err() {
                self.0.dropped.fetch_add(lines, Ordering::Relaxed);
            }
            self.lock_queue().is_writing = false;
            self.0.queue_changed.notify_all();
            let dropped = self.dropped();
            if dropped > reported {
                let lines = dropped - reported;
                tracing::warn!(lines, "lines of the log were dropped: stderr was not read in time");
                reported = dropped;
            }
        }
    }

    /// Waits for lines and takes all that there are: how many.
    fn take_lines(&self, text: &mut Vec<u8>) -> u64 {
        text.clear();
        let idle = |queue: &mut LogQueue| queue.text.is_empty();
        drop(self.0.queue_changed.wait_while(self.lock_queue(), idle));
        thread::sleep(BATCH_DELAY);
        let mut queue = self.lock_queue();
        mem::swap(&mut queue.text, text);
        queue.is_writing = true;
        mem::take(&mut queue.lines)
    }

    /// Nothing panics while it is locked.
    fn lock_queue(&self) -> MutexGuard<'_, LogQueue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts lines into the queue, each of which comes in one call.
pub struct LineWriter {
    log: LogSink,
    limit: usize,
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.push_line(line, self.limit);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogSink {
    type Writer = LineWriter;

    fn make_writer(&self) -> LineWriter {
        LineWriter { log: self.clone(), limit: MAX_QUEUED_BYTES }
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> LineWriter {
        let limit =
            if line.target() == ACCESS_TARGET { MAX_ACCESS_BYTES } else { MAX_QUEUED_BYTES };
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
    struct SlowReader {
        go: mpsc::Receiver<()>,
        read: mpsc::Sender<Vec<u8>>,
    }

    impl Write for SlowReader {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.read.send(text.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow_reader() -> (LogSink, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let ((go, wait), (read, text)) = (mpsc::channel(), mpsc::channel());
        (LogSink::spawn_writer(SlowReader { go: wait, read }).expect("a thread"), go, text)
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (sink, go, text) = slow_reader();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        // Some are taken at once; then the queue fills up.
        for _ in 0..3 * MAX_QUEUED_BYTES / line.len() {
            sink.push_line(&line, MAX_QUEUED_BYTES);
        }
        let dropped = sink.dropped();
        assert!(dropped >= (MAX_QUEUED_BYTES / line.len()) as u64, "{dropped}");
        let mut bytes = 0;
        let all = (3 * MAX_QUEUED_BYTES / line.len()) as u64 - dropped;
        while bytes < all as usize * line.len() {
            go.send(()).expect("the log goes on");
            bytes += text.recv().expect("text").len();
        }
        assert_eq!(bytes, all as usize * line.len(), "what is not dropped is whole");
        assert_eq!(sink.dropped(), dropped);
    }

    #[test]
    fn access_logs_leave_room_for_the_agents_own_lines() {
        let (sink, _go, _text) = slow_reader();
        // The first may be on its way already.
        while sink.dropped() == 0 {
            sink.push_line(&[b'x'; 1024], MAX_ACCESS_BYTES);
        }
        sink.push_line(b"its own\n", MAX_QUEUED_BYTES);
        assert_eq!(sink.dropped(), 1);
    }

    #[test]
    fn flush_waits_for_the_last_line_if_somebody_reads() {
        let (sink, go, text) = slow_reader();
        sink.push_line(b"the last\n", MAX_QUEUED_BYTES);
        go.send(()).expect("the log goes on");
        sink.flush();
        assert_eq!(text.try_recv(), Ok(b"the last\n".to_vec()));
    }

    #[test]
    fn flush_does_not_wait_for_ever() {
        let (sink, _go, text) = slow_reader();
        sink.push_line(b"nobody reads this\n", MAX_QUEUED_BYTES);
        sink.flush();
        assert_eq!(text.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn a_reader_that_went_costs_lines_only() {
        let (sink, go, text) = slow_reader();
        drop((go, text));
        sink.push_line(b"one\n", MAX_QUEUED_BYTES);
        sink.flush();
        sink.push_line(b"two\n", MAX_QUEUED_BYTES);
        sink.flush();
        assert_eq!(sink.dropped(), 2);
    }
}
