//! A client's HTTP/1 connection whose requests are held to one reading (see [`super::framing`]).

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

/// How long a head may take from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client that sends no more is waited for without a byte of an answer. One that only has
/// nothing more to ask cannot be told from one that has left, until something is sent to it.
const RESPONSE_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the rest of what a refused client sends is read. Closing before would reset the connection,
/// and the client might not get to read why.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are read at a time.
const READ_BLOCK: usize = 16 * 1024;

/// What a [`Strict`] connection and who serves it have to tell each other.
#[derive(Clone, Debug, Default)]
pub struct FramingGuardHandle(Arc<FramingGuardShared>);

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
    /// The request was answered: the offer of another protocol was taken up, or there is none any more.
    pub fn resolve_upgrade(&self, accepted: bool) {
        self.0
            .upgrade_outcome
            .store(if accepted { UPGRADE_ACCEPTED } else { UPGRADE_DECLINED }, Ordering::Release);
        self.0.waker.wake();
    }

    /// Waits until the client has sent its last request.
    pub async fn requests_ended(&self) {
        self.0.requests_ended.notified().await;
    }
}

/// The connection.
pub struct FramingGuard<S> {
    stream: S,
    framer: RequestFramer,
    handle: FramingGuardHandle,
    /// Read, and not looked at.
    unframed: BytesMut,
    /// Looked at, and free to go on.
    framed: Bytes,
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// Set when no request will come any more: how long answers are waited for.
    response_deadline: Option<Pin<Box<Sleep>>>,
    /// Set when the connection is closed on a client that may still be sending.
    linger_deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> FramingGuard<S> {
    /// A connection from which `begin` was read already.
    pub fn new(stream: S, prefix: BytesMut, handle: FramingGuardHandle) -> Self {
        let (framer, framed) = (RequestFramer::default(), Bytes::new());
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

    /// Makes something ready to go on; nothing at the end.
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
                        // What is cut off goes on as it is: it is no whole body.
                        self.framed = self.unframed.split().freeze();
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more of a head, or finds that there is none.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Empty lines in front of a request are no part of it (RFC 9112, 2.2).
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

    /// In the place of a head comes a request that is answered with its fault, and nothing behind it. Its
    /// answer ends the connection; before it, those to the requests in front of it have their time.
    fn inject_fault(&mut self, fault: RequestHeadFault) {
        self.framed = Bytes::from_static(fault.marker_request());
        self.linger_deadline = Some(Box::pin(sleep(LINGER_TIMEOUT)));
        self.response_deadline = Some(Box::pin(sleep(RESPONSE_IDLE_TIMEOUT)));
    }

    /// No request comes any more: the answer that is under way is the last.
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
    /// An answer goes out, and is read.
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
