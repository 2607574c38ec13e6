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
    fault::Fault,
    framing::{Follower, POISON, Step},
};

/// How long a head may take from its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long a client that sends no more is waited for without a byte of an answer. One that only has
/// nothing more to ask cannot be told from one that has left, until something is sent to it.
const SILENT_WITHIN: Duration = Duration::from_secs(5);
/// How long the rest of what a refused client sends is read. Closing before would reset the connection,
/// and the client might not get to read why.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read at a time.
const BLOCK: usize = 16 * 1024;

/// What a [`Strict`] connection and who serves it have to tell each other.
#[derive(Clone, Debug, Default)]
pub struct Offers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    answer: AtomicU8,
    waker: AtomicWaker,
    ended: Notify,
}

const NONE: u8 = 0;
const TAKEN: u8 = 1;
const DECLINED: u8 = 2;

impl Offers {
    /// The request was answered: the offer of another protocol was taken up, or there is none any more.
    pub fn answer(&self, taken: bool) {
        self.0.answer.store(if taken { TAKEN } else { DECLINED }, Ordering::Release);
        self.0.waker.wake();
    }

    /// Waits until the client has sent its last request.
    pub async fn ended(&self) {
        self.0.ended.notified().await;
    }
}

/// The connection.
pub struct Strict<S> {
    stream: S,
    follower: Follower,
    offers: Offers,
    /// Read, and not looked at.
    raw: BytesMut,
    /// Looked at, and free to go on.
    clear: Bytes,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Set when no request will come any more: how long answers are waited for.
    silence: Option<Pin<Box<Sleep>>>,
    /// Set when the connection is closed on a client that may still be sending.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// A connection from which `begin` was read already.
    pub fn new(stream: S, begin: BytesMut, offers: Offers) -> Self {
        let (follower, clear) = (Follower::default(), Bytes::new());
        let (deadline, silence, linger) = (None, None, None);
        Self { stream, follower, offers, raw: begin, clear, deadline, silence, linger }
    }

    /// Makes something ready to go on; nothing at the end.
    fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.clear.is_empty() {
            if let Some(silence) = &mut self.silence {
                return silence.as_mut().poll(cx).map(Ok);
            }
            let in_head = self.follower.is_in_head();
            match self.follower.step(&self.raw) {
                Step::Take(count) => {
                    self.deadline = None;
                    self.clear = self.raw.split_to(count).freeze();
                }
                Step::Rewrite(count, head) => {
                    self.deadline = None;
                    self.raw.advance(count);
                    self.clear = head.into();
                }
                Step::Refuse if in_head => self.refuse(Fault::Malformed),
                Step::Refuse => {
                    self.clear = Bytes::from_static(POISON);
                    self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                }
                Step::Wait => ready!(self.poll_offer(cx)),
                Step::More if in_head => ready!(self.poll_head(cx))?,
                Step::More => {
                    if ready!(self.poll_more(cx))? == 0 {
                        // What is cut off goes on as it is: it is no whole body.
                        self.clear = self.raw.split().freeze();
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
        let has_begun = self.raw.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        if !self.raw.is_empty() {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(HEAD_WITHIN)));
            if deadline.as_mut().poll(cx).is_ready() {
                self.refuse(Fault::Slow);
                return Poll::Ready(Ok(()));
            }
        }
        match ready!(self.poll_more(cx)) {
            Ok(0) if !has_begun => self.end(),
            Err(error) if !has_begun && error.kind() != io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Err(error));
            }
            Err(_) if !has_begun => self.end(),
            Ok(0) | Err(_) => self.refuse(Fault::CutOff),
            Ok(_) => {}
        }
        Poll::Ready(Ok(()))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.raw.reserve(BLOCK);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.raw)
    }

    /// In the place of a head comes a request that is answered with its fault, and nothing behind it. Its
    /// answer ends the connection; before it, those to the requests in front of it have their time.
    fn refuse(&mut self, fault: Fault) {
        self.clear = Bytes::from_static(fault.request());
        self.linger = Some(Box::pin(sleep(LINGER)));
        self.silence = Some(Box::pin(sleep(SILENT_WITHIN)));
    }

    /// No request comes any more: the answer that is under way is the last.
    fn end(&mut self) {
        self.silence = Some(Box::pin(sleep(SILENT_WITHIN)));
        self.offers.0.ended.notify_one();
    }

    fn poll_offer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.offers.0.waker.register(cx.waker());
        match self.offers.0.answer.swap(NONE, Ordering::Acquire) {
            NONE => Poll::Pending,
            answer => {
                self.follower.answer_offer(answer == TAKEN);
                Poll::Ready(())
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_clear(cx))?;
        let count = self.clear.len().min(buffer.remaining());
        buffer.put_slice(&self.clear[..count]);
        self.clear.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S> Strict<S> {
    /// An answer goes out, and is read.
    fn is_heard(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Some(silence), Poll::Ready(Ok(1..))) = (&mut self.silence, written) {
            silence.as_mut().reset(Instant::now() + SILENT_WITHIN);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.is_heard(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.is_heard(&written);
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
        while let Some(mut linger) = self.linger.take() {
            if linger.as_mut().poll(cx).is_ready() {
                break;
            }
            self.linger = Some(linger);
            self.raw.clear();
            if matches!(ready!(self.poll_more(cx)), Ok(0) | Err(_)) {
                self.linger = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}
