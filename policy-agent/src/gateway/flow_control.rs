//! Limits how much of a body is buffered between its two connections. A side that does not read
//! must not cost more than a few blocks. The backpressure reaches the sender.
//!
//! ```text
//! service ─► MeteredStream (8 KiB blocks) ─► library ─► PacedBody (≤ 8 KiB unsent)
//!                                             client ◄─ MeteredStream ◄─ library ◄┘
//! ```
//!
//! A transfer that makes progress reads larger blocks. Each sandbox has a few permits for the
//! largest ones.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::BufMut as _;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::io::poll_read_buf;

/// Block size of a read in bytes. The library doubles its buffer when a read fills it, and then
/// every read would allocate a new one and fill only half of it. One byte less avoids that.
const READ_BLOCK: usize = 8 * 1024 - 1;
/// Block size of a bulk transfer.
const BULK_READ_BLOCK: usize = 16 * 1024 - 1;
/// Block size of a bulk transfer that holds a permit.
const LARGE_READ_BLOCK: usize = 64 * 1024;
/// Bytes after which a transfer counts as bulk. This exceeds what the socket buffers take when the
/// reader does not read, see [`SOCKET_UNSENT_LIMIT`](crate::net::sandbox_dialer::SOCKET_UNSENT_LIMIT).
const BULK_THRESHOLD: usize = 512 * 1024;
/// Body bytes that the library may hold for writing.
const MAX_BACKLOG: usize = READ_BLOCK;

/// Bytes that TLS may hold unsent, in addition to those of the socket.
pub(super) const TLS_UNSENT_LIMIT: usize = 16 * 1024;
/// Concurrent large reads of the connections to one sandbox.
pub(super) const LARGE_READS_PER_SANDBOX: usize = 8;

/// Body bytes passed to a connection that it has not written yet.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteBacklog(Arc<BacklogState>);

#[derive(Debug, Default)]
struct BacklogState {
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

impl WriteBacklog {
    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Writes also include heads and chunk sizes, so `bytes` may exceed the backlog. It stops at 0.
    fn subtract(&self, bytes: usize) {
        let decrease = |previous: usize| Some(previous.saturating_sub(bytes));
        let previous = self.0.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, decrease);
        if previous.is_ok_and(|previous| previous >= MAX_BACKLOG) {
            self.0.waker.wake();
        }
    }

    fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_capacity() {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        if self.has_capacity() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_capacity(&self) -> bool {
        self.0.bytes.load(Ordering::Acquire) < MAX_BACKLOG
    }
}

/// A body that waits until its connection has written most of the earlier data.
#[derive(Debug)]
pub(super) struct PacedBody<B> {
    body: B,
    backlog: Option<WriteBacklog>,
}

impl<B> PacedBody<B> {
    /// Wraps a body whose connection is not known yet.
    pub(super) const fn new(body: B) -> Self {
        Self { body, backlog: None }
    }

    /// The body that is paced.
    pub(super) const fn get_mut(&mut self) -> &mut B {
        &mut self.body
    }

    /// Sets the backlog of the connection that the body is written to.
    pub(super) fn set_backlog(&mut self, backlog: &WriteBacklog) {
        self.backlog = Some(backlog.clone());
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for PacedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(backlog) = &self.backlog {
            ready!(backlog.poll_capacity(cx));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if let (Some(backlog), Some(data)) = (&self.backlog, data) {
            backlog.add(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that reads in blocks and updates its [`WriteBacklog`].
pub(super) struct MeteredStream<S> {
    stream: S,
    backlog: WriteBacklog,
    large_read_permits: Arc<Semaphore>,
    large_read_permit: Option<OwnedSemaphorePermit>,
    /// Bytes read since the last write.
    bytes_read: usize,
}

impl<S> MeteredStream<S> {
    /// Wraps a connection that shares its large reads with others.
    pub(super) fn new(
        stream: S,
        backlog: WriteBacklog,
        large_read_permits: Arc<Semaphore>,
    ) -> Self {
        Self { stream, backlog, large_read_permits, large_read_permit: None, bytes_read: 0 }
    }

    fn record_write(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.backlog.subtract(count);
            self.bytes_read = 0;
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.bytes_read >= BULK_THRESHOLD && this.large_read_permit.is_none() {
            this.large_read_permit = Arc::clone(&this.large_read_permits).try_acquire_owned().ok();
        }
        let block = match this.large_read_permit {
            Some(_) => LARGE_READ_BLOCK,
            None if this.bytes_read >= BULK_THRESHOLD => BULK_READ_BLOCK,
            None => READ_BLOCK,
        };
        let read = poll_read_buf(Pin::new(&mut this.stream), cx, &mut buffer.limit(block));
        if let Poll::Ready(Ok(count)) = read {
            this.bytes_read = this.bytes_read.saturating_add(count);
        } else {
            // Nothing is available to read, so the permit is released.
            this.large_read_permit = None;
        }
        read.map_ok(|_| ())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.record_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.record_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
