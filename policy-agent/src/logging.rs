//! The agent's log. A separate thread writes the lines from a bounded queue, so that a slow reader
//! of stderr blocks no other thread. Lines that do not fit are dropped, counted, and reported
//! later.

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

/// The most bytes that may be queued. As many again may be in the middle of a write.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// The part of the queue that access logs may use, so that a sandbox's clients cannot displace the
/// agent's own lines.
const MAX_ACCESS_BYTES: usize = MAX_QUEUED_BYTES / 4 * 3;
/// The tracing target of access logs.
pub const ACCESS_TARGET: &str = "access";
/// How long lines are collected before one write.
const BATCH_DELAY: Duration = Duration::from_millis(2);
/// How long a stopping agent waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log filter unless `RUST_LOG` sets another. It silences libraries that log about a sandbox's
/// messages, which would let the sandbox flood the log.
const DEFAULT_FILTER: &str = "info,hickory_net=error,hickory_proto=error,hickory_resolver=error,\
                      hyper=error,rustls=error,tokio_rustls=error";

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// JSON objects, one a line.
    Json,
}

/// The queue of log lines. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LogSink(Arc<LogSinkShared>);

#[derive(Debug, Default)]
struct LogSinkShared {
    queue: Mutex<LogQueue>,
    /// Signals a change of the queue.
    queue_changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct LogQueue {
    /// The queued text.
    text: Vec<u8>,
    /// The number of queued lines.
    lines: u64,
    /// Whether the thread is writing lines that it took from the queue.
    is_writing: bool,
}

impl LogSink {
    /// Logs to stderr in this format from now on, panics included.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn init_stderr(format: LogFormat) -> Result<Self> {
        let filter =
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
        let terminal = io::IsTerminal::is_terminal(&io::stderr());
        let sink = Self::spawn_writer(io::stderr())?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(sink.clone());
        match format {
            LogFormat::Text => builder.with_ansi(terminal).init(),
            LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).init(),
        }
        panic::set_hook(Box::new(log_panic));
        Ok(sink)
    }

    /// Starts a thread that writes the lines to `output`.
    fn spawn_writer(output: impl Write + Send + 'static) -> Result<Self> {
        let sink = Self::default();
        let writer = sink.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write_loop(output)).context("cannot start a thread")?;
        Ok(sink)
    }

    /// The number of lines dropped so far because the reader was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits, but not long, until all lines are written.
    pub fn flush(&self) {
        let pending = |queue: &mut LogQueue| queue.is_writing || !queue.text.is_empty();
        // A timeout cannot be reported anywhere.
        drop(self.0.queue_changed.wait_timeout_while(self.lock_queue(), FLUSH_TIMEOUT, pending));
    }

    /// Queues a line, or drops it if the queue would exceed `limit` bytes.
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

    /// Waits for lines, takes all of them, and returns their number.
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

    /// Ignores poisoning: no code panics while it holds the lock.
    fn lock_queue(&self) -> MutexGuard<'_, LogQueue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues log lines. Each line arrives in a single `write` call.
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

/// Logs a panic in the standard library's format. The standard hook itself would block on a slow
/// reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    tracing::error!("thread {thread}: {panic}");
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that reads only when the test allows it.
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
        // The thread takes the first lines at once; then the queue fills up.
        for _ in 0..3 * MAX_QUEUED_BYTES / line.len() {
            sink.push_line(&line, MAX_QUEUED_BYTES);
        }
        let dropped = sink.dropped();
        let lost = usize::try_from(dropped).expect("a small number");
        assert!(lost >= MAX_QUEUED_BYTES / line.len(), "{lost}");
        let mut bytes = 0;
        let all = 3 * MAX_QUEUED_BYTES / line.len() - lost;
        while bytes < all * line.len() {
            go.send(()).expect("the log goes on");
            bytes += text.recv().expect("text").len();
        }
        assert_eq!(bytes, all * line.len(), "what is not dropped is whole");
        assert_eq!(sink.dropped(), dropped);
    }

    #[test]
    fn access_logs_leave_room_for_the_agents_own_lines() {
        let (sink, _go, _text) = slow_reader();
        // The thread may have taken the first lines already.
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
