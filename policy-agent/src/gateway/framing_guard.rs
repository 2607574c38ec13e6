//! A client's HTTP/1 connection that rejects ambiguous request framing (see
//! [`super::request_framer`]).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, Sleep, sleep},
};
use tokio_util::io::poll_read_buf;

use super::{
    head_fault::RequestHeadFault,
    request_framer::{FramingStep, INVALID_CHUNK, RequestFramer},
};

/// Time limit for a head, from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for the next response byte once the client sends no more. A client that has only
/// sent its last request cannot be distinguished from one that has disconnected, until something is
/// sent to it.
const RESPONSE_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to keep reading from a refused client. Closing earlier would reset the connection, and
/// the client might not read the reason.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes to read at a time.
const READ_BLOCK: usize = 16 * 1024;

/// The channel between a [`FramingGuard`] and the server that reads from it.
#[derive(Clone, Debug, Default)]
pub(super) struct FramingGuardHandle(Arc<FramingGuardShared>);

#[derive(Debug, Default)]
struct FramingGuardShared {
    upgrade_outcome: AtomicU8,
    waker: AtomicWaker,
    requests_ended: Notify,
}

const UPGRADE_UNRESOLVED: u8 = 0;
const UPGRADE_ACCEPTED: u8 = 1;
const UPGRADE_DECLINED: u8 = 2;

impl FramingGuardHandle {
    /// Reports that the request has been answered: its upgrade was accepted, or there is none any
    /// more.
    pub(super) fn resolve_upgrade(&self, accepted: bool) {
        self.0
            .upgrade_outcome
            .store(if accepted { UPGRADE_ACCEPTED } else { UPGRADE_DECLINED }, Ordering::Release);
        self.0.waker.wake();
    }

    /// Waits until the client has sent its last request.
    pub(super) async fn requests_ended(&self) {
        self.0.requests_ended.notified().await;
    }
}

/// A client connection behind the framing check.
pub(super) struct FramingGuard<S> {
    stream: S,
    framer: RequestFramer,
    handle: FramingGuardHandle,
    /// Bytes read but not yet parsed.
    unframed: BytesMut,
    /// Parsed bytes, ready to be read.
    framed: Bytes,
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// Set after the last request. Limits the time between response bytes.
    response_deadline: Option<Pin<Box<Sleep>>>,
    /// Set when the server closes the connection while the client may still be sending.
    linger_deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> FramingGuard<S> {
    /// Wraps a connection from which `prefix` has already been read.
    pub(super) fn new(
        stream: S,
        prefix: BytesMut,
        framer: RequestFramer,
        handle: FramingGuardHandle,
    ) -> Self {
        let framed = Bytes::new();
        let (head_deadline, response_deadline, linger_deadline) = (None, None, None);
        Self {
            stream,
            framer,
            handle,
            unframed: prefix,
            framed,
            head_deadline,
            response_deadline,
            linger_deadline,
        }
    }

    /// Waits until there are parsed bytes to read. At the end of the stream there are none.
    fn poll_framed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.framed.is_empty() {
            if let Some(response_deadline) = &mut self.response_deadline {
                return response_deadline.as_mut().poll(cx).map(Ok);
            }
            let in_head = self.framer.is_in_head();
            match self.framer.step(&self.unframed) {
                FramingStep::Forward(count) => {
                    self.head_deadline = None;
                    self.framed = self.unframed.split_to(count).freeze();
                }
                FramingStep::Rewrite(count, head) => {
                    self.head_deadline = None;
                    self.unframed.advance(count);
                    self.framed = head.into();
                }
                FramingStep::Reject if in_head => self.inject_fault(RequestHeadFault::Malformed),
                FramingStep::Reject => {
                    self.framed = Bytes::from_static(INVALID_CHUNK);
                    self.linger_deadline.get_or_insert_with(|| Box::pin(sleep(LINGER_TIMEOUT)));
                }
                FramingStep::AwaitUpgrade => ready!(self.poll_upgrade(cx)),
                FramingStep::NeedMore if in_head => ready!(self.poll_head(cx))?,
                FramingStep::NeedMore => {
                    if ready!(self.poll_read_more(cx))? == 0 {
                        // A truncated body is forwarded as it is. The server sees that it is
                        // incomplete.
                        self.framed = self.unframed.split().freeze();
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more of a head, or detects the end of the requests.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Empty lines before a request are not part of it (RFC 9112, 2.2).
        let has_started = self.unframed.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        if !self.unframed.is_empty() {
            let head_deadline =
                self.head_deadline.get_or_insert_with(|| Box::pin(sleep(HEAD_TIMEOUT)));
            if head_deadline.as_mut().poll(cx).is_ready() {
                self.inject_fault(RequestHeadFault::TimedOut);
                return Poll::Ready(Ok(()));
            }
        }
        match ready!(self.poll_read_more(cx)) {
            Ok(0) if !has_started => self.end_requests(),
            Err(error) if !has_started && error.kind() != io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Err(error));
            }
            Err(_) if !has_started => self.end_requests(),
            Ok(0) | Err(_) => self.inject_fault(RequestHeadFault::Truncated),
            Ok(_) => {}
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.unframed.reserve(READ_BLOCK);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.unframed)
    }

    /// Replaces a head by a marker request, which the server answers with the fault. It reads
    /// nothing after it, and its response closes the connection. Before that, pending responses to
    /// earlier requests may complete.
    fn inject_fault(&mut self, fault: RequestHeadFault) {
        self.framed = Bytes::from_static(fault.marker_request());
        self.linger_deadline = Some(Box::pin(sleep(LINGER_TIMEOUT)));
        self.response_deadline = Some(Box::pin(sleep(RESPONSE_IDLE_TIMEOUT)));
    }

    /// No more requests will arrive: the current response is the last one.
    fn end_requests(&mut self) {
        self.response_deadline = Some(Box::pin(sleep(RESPONSE_IDLE_TIMEOUT)));
        self.handle.0.requests_ended.notify_one();
    }

    fn poll_upgrade(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.handle.0.waker.register(cx.waker());
        match self.handle.0.upgrade_outcome.swap(UPGRADE_UNRESOLVED, Ordering::Acquire) {
            UPGRADE_UNRESOLVED => Poll::Pending,
            outcome => {
                self.framer.resolve_upgrade(outcome == UPGRADE_ACCEPTED);
                Poll::Ready(())
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FramingGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_framed(cx))?;
        let count = self.framed.len().min(buffer.remaining());
        buffer.put_slice(&self.framed[..count]);
        self.framed.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S> FramingGuard<S> {
    /// Extends the deadline while response bytes are being written.
    fn extend_response_deadline(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Some(response_deadline), Poll::Ready(Ok(1..))) =
            (&mut self.response_deadline, written)
        {
            response_deadline.as_mut().reset(Instant::now() + RESPONSE_IDLE_TIMEOUT);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FramingGuard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.extend_response_deadline(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.extend_response_deadline(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        while let Some(mut linger_deadline) = self.linger_deadline.take() {
            if linger_deadline.as_mut().poll(cx).is_ready() {
                break;
            }
            self.linger_deadline = Some(linger_deadline);
            self.unframed.clear();
            if matches!(ready!(self.poll_read_more(cx)), Ok(0) | Err(_)) {
                self.linger_deadline = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}
