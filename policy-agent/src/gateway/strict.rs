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
    time::{Sleep, sleep},
};
use tokio_util::io::poll_read_buf;

use super::framing::{Follower, POISON, Step};

/// How long a head may take from its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// Bytes that are read at a time.
const BLOCK: usize = 16 * 1024;

/// Says to a [`Strict`] connection what became of an offer of another protocol.
#[derive(Clone, Debug, Default)]
pub struct Offers(Arc<Answer>);

#[derive(Debug, Default)]
struct Answer {
    value: AtomicU8,
    waker: AtomicWaker,
}

const NONE: u8 = 0;
const TAKEN: u8 = 1;
const DECLINED: u8 = 2;

impl Offers {
    /// The request was answered: the offer was taken up, or there is none any more.
    pub fn answer(&self, taken: bool) {
        self.0.value.store(if taken { TAKEN } else { DECLINED }, Ordering::Release);
        self.0.waker.wake();
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
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// A connection from which `begin` was read already.
    pub fn new(stream: S, begin: BytesMut, offers: Offers) -> Self {
        let (follower, clear) = (Follower::default(), Bytes::new());
        Self { stream, follower, offers, raw: begin, clear, deadline: None }
    }

    /// Makes something ready to go on; nothing at the end.
    fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.clear.is_empty() {
            match self.follower.step(&self.raw) {
                Step::Take(count) => {
                    self.deadline = None;
                    self.clear = self.raw.split_to(count).freeze();
                }
                Step::Refuse => self.clear = Bytes::from_static(POISON),
                Step::Wait => ready!(self.poll_offer(cx)),
                Step::More => {
                    if ready!(self.poll_more(cx))? == 0 {
                        // What is cut off goes on as it is: it is no whole request.
                        self.clear = self.raw.split().freeze();
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.follower.is_in_head() && !self.raw.is_empty() {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(HEAD_WITHIN)));
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        self.raw.reserve(BLOCK);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.raw)
    }

    fn poll_offer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.offers.0.waker.register(cx.waker());
        match self.offers.0.value.swap(NONE, Ordering::Acquire) {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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
