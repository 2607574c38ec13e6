//! Relays the bytes of a connection in both directions, all but short messages without copying them
//! to user space.
//!
//! Each direction fills a pipe from one socket and empties it into the other before it reads more,
//! so a slow reader slows down its sender. The end of one stream shuts down that direction only. An
//! error on either side resets both.

use std::{cell::RefCell, io, net::Shutdown, time::Duration};

use bytes::BufMut as _;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, task::consume_budget, time::sleep};

use super::{
    pipe_pool::{PipePool, SplicePipe},
    socket::{reset_connection, reset_error, try_read_buf, wait_for_reset},
};

/// Up to this many bytes at a time are copied: for so few, a pipe costs more.
const COPY_SIZE: usize = 16 * 1024;

thread_local! {
    /// The buffer of all copies of a thread. It holds no bytes across a wait.
    static COPY_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How long to wait before the next attempt when the process is out of file descriptors.
const PIPE_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Relays between two connections until both directions have ended.
///
/// # Errors
/// One side failed. Both are reset.
pub(super) async fn splice_bidirectional(
    pool: &PipePool,
    client: &TcpStream,
    upstream: &TcpStream,
) -> io::Result<()> {
    let both = pump_both(pool, client, upstream).await;
    if both.is_err() {
        reset_connection(client);
        reset_connection(upstream);
    }
    both
}

async fn pump_both(pool: &PipePool, client: &TcpStream, upstream: &TcpStream) -> io::Result<()> {
    let up = pump(pool, client, upstream);
    let down = pump(pool, upstream, client);
    tokio::pin!(up, down);
    // After the end of its stream, a side sends nothing more, so a reset must be awaited
    // explicitly.
    tokio::select! {
        ended = &mut up => {
            ended?;
            tokio::select! { ended = down => ended, () = wait_for_reset(client) => Err(reset_error()) }
        }
        ended = &mut down => {
            ended?;
            tokio::select! { ended = up => ended, () = wait_for_reset(upstream) => Err(reset_error()) }
        }
    }
}

/// Relays one direction to the end of the stream. Short messages are copied; while a stream brings
/// more than that at a time, it is spliced.
async fn pump(pool: &PipePool, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut is_bulk = false;
    loop {
        from.readable().await?;
        if !is_bulk {
            match copy_available(from, to).await? {
                Copied::All => continue,
                Copied::ToEnd => break,
                Copied::Part => {}
            }
        }
        let mut pipe = acquire_pipe(pool).await;
        let spliced = splice_available(&mut pipe, from, to).await?;
        pool.release(pipe);
        let Some(count) = spliced else { break };
        is_bulk = count >= COPY_SIZE;
    }
    SockRef::from(to).shutdown(Shutdown::Write)
}

/// What [`copy_available`] has relayed.
enum Copied {
    /// All that was available.
    All,
    /// As much as fits into the buffer.
    Part,
    /// All to the end of the stream.
    ToEnd,
}

/// Relays up to [`COPY_SIZE`] of the bytes that are available.
async fn copy_available(from: &TcpStream, to: &TcpStream) -> io::Result<Copied> {
    let (copied, unsent) = COPY_BUFFER.with_borrow_mut(|buffer| try_copy(from, to, buffer))?;
    if !unsent.is_empty() {
        // Boxed because every idle connection would reserve space for it otherwise.
        Box::pin(write_unsent(from, to, &unsent)).await?;
    }
    consume_budget().await; // yields to other tasks
    Ok(copied)
}

/// Copies without waiting. Returns the bytes that `to` did not accept.
fn try_copy(
    from: &TcpStream,
    to: &TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<(Copied, Vec<u8>)> {
    buffer.clear();
    buffer.reserve_exact(COPY_SIZE);
    match try_read_buf(from, &mut (&mut *buffer).limit(COPY_SIZE)) {
        Ok(0) => return Ok((Copied::ToEnd, Vec::new())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Ok((Copied::All, Vec::new()));
        }
        Err(error) => return Err(error),
    }
    let sent = match to.try_write(buffer) {
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    let copied = if buffer.len() < COPY_SIZE { Copied::All } else { Copied::Part };
    Ok((copied, buffer[sent..].to_vec()))
}

async fn write_unsent(from: &TcpStream, to: &TcpStream, mut unsent: &[u8]) -> io::Result<()> {
    while !unsent.is_empty() {
        wait_writable(from, to).await?;
        match to.try_write(unsent) {
            Ok(count) => unsent = &unsent[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn acquire_pipe(pool: &PipePool) -> SplicePipe {
    loop {
        match pool.acquire() {
            Ok(pipe) => return pipe,
            Err(_) => sleep(PIPE_RETRY_DELAY).await,
        }
    }
}

/// Relays all bytes that are available, and returns their number. `None` if the stream has ended.
async fn splice_available(
    pipe: &mut SplicePipe,
    from: &TcpStream,
    to: &TcpStream,
) -> io::Result<Option<usize>> {
    let mut total = 0_usize;
    loop {
        match from.try_io(Interest::READABLE, || pipe.fill_from(from)) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                total = total.saturating_add(count);
                drain_pipe(pipe, from, to).await?;
            }
            // A short splice does not say that nothing is left: a pipe may be full of small pieces.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(total)),
            Err(error) => return Err(error),
        }
        consume_budget().await; // yields to other tasks
    }
}

async fn drain_pipe(pipe: &mut SplicePipe, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    while pipe.buffered() > 0 {
        match to.try_io(Interest::WRITABLE, || pipe.drain_to(to)) {
            // Boxed because every idle connection would reserve space for it otherwise.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Box::pin(wait_writable(from, to)).await?;
            }
            done => done?,
        }
    }
    Ok(())
}

/// Waits until `to` accepts more bytes, or `from` is reset.
async fn wait_writable(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    tokio::select! {
        ready = to.writable() => ready,
        () = wait_for_reset(from) => Err(reset_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// Two connected sockets.
    async fn connected_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A client and a server, spliced together.
    async fn spliced_pair(
        pool: &Arc<PipePool>,
    ) -> (TcpStream, TcpStream, JoinHandle<io::Result<()>>) {
        let (client, near) = connected_pair().await;
        let (far, server) = connected_pair().await;
        let pool = Arc::clone(pool);
        let task = tokio::spawn(async move { splice_bidirectional(&pool, &near, &far).await });
        (client, server, task)
    }

    fn pseudo_random_bytes(seed: u8, length: usize) -> Vec<u8> {
        let mut state = u32::from(seed) + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }

    /// Sends, shuts down the write side, and reads to the end.
    async fn send_and_receive(stream: TcpStream, sent: Vec<u8>) -> Vec<u8> {
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        sending.await.unwrap();
        got
    }

    async fn is_reset(stream: &mut TcpStream) -> bool {
        let read = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("in time");
        matches!(read, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_bytes_arrive_both_ways_at_once_in_many_connections() {
        let pool = Arc::<PipePool>::default();
        let mut transfers = Vec::new();
        for seed in 0..32_u8 {
            let (client, server, task) = spliced_pair(&pool).await;
            let length = if seed == 0 { 64 << 20 } else { 1 << 20 };
            let (up, down) = (
                pseudo_random_bytes(seed, length),
                pseudo_random_bytes(seed ^ 255, length / 2 + 1),
            );
            transfers.push(tokio::spawn(async move {
                let (at_client, at_server) = timeout(SOON, async {
                    tokio::join!(
                        send_and_receive(client, up.clone()),
                        send_and_receive(server, down.clone())
                    )
                })
                .await
                .expect("in time");
                assert!(at_client == down && at_server == up);
                task.await.unwrap().unwrap();
            }));
        }
        for transfer in transfers {
            transfer.await.unwrap();
        }
        let again = pool.acquire().unwrap();
        assert_eq!(again.buffered(), 0);
    }

    #[tokio::test]
    async fn one_way_goes_on_when_the_other_has_ended() {
        let pool = Arc::<PipePool>::default();
        for server_first in [false, true] {
            let (mut client, mut server, task) = spliced_pair(&pool).await;
            let (first, second) =
                if server_first { (&mut server, &mut client) } else { (&mut client, &mut server) };
            first.write_all(b"last words").await.unwrap();
            first.shutdown().await.unwrap();
            let mut got = Vec::new();
            timeout(SOON, second.read_to_end(&mut got)).await.unwrap().unwrap();
            assert_eq!(got, b"last words");
            second.write_all(&pseudo_random_bytes(1, 1 << 20)).await.unwrap();
            second.shutdown().await.unwrap();
            got.clear();
            timeout(SOON, first.read_to_end(&mut got)).await.unwrap().unwrap();
            assert!(got == pseudo_random_bytes(1, 1 << 20));
            task.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_reset_goes_through_whatever_the_state() {
        let pool = Arc::<PipePool>::default();
        for of_server in [false, true] {
            for half_closed in [false, true] {
                for blocked in [false, true] {
                    let (mut client, mut server, task) = spliced_pair(&pool).await;
                    let (broken, other) = if of_server {
                        (&mut server, &mut client)
                    } else {
                        (&mut client, &mut server)
                    };
                    if blocked {
                        let _ = timeout(Duration::from_millis(200), async {
                            loop {
                                broken.write_all(&[0; 65536]).await.unwrap();
                            }
                        })
                        .await;
                    } else {
                        broken.write_all(b"x").await.unwrap();
                        other.read_exact(&mut [0]).await.unwrap();
                    }
                    if half_closed {
                        broken.shutdown().await.unwrap();
                        if !blocked {
                            assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
                        }
                    }
                    reset_connection(broken);
                    let ended = timeout(SOON, task).await.expect("noticed").unwrap();
                    assert!(ended.is_err(), "{of_server} {half_closed} {blocked}");
                    assert!(half_closed || is_reset(other).await);
                    // After the end of the stream a read returns only that, so the test writes.
                    let sent = timeout(SOON, async { while other.write(b"x").await.is_ok() {} });
                    sent.await.expect("the other side is reset too");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_slow_reader_holds_up_its_sender() {
        let pool = Arc::<PipePool>::default();
        let (mut client, mut server, _task) = spliced_pair(&pool).await;
        let mut sent = 0_u64;
        let stalled = timeout(Duration::from_millis(500), async {
            loop {
                sent += client.write(&[7; 65536]).await.unwrap() as u64;
            }
        });
        assert!(stalled.await.is_err());
        // The socket buffers of two connections, and one pipe.
        assert!(sent < 64 << 20, "{sent}");
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        timeout(SOON, server.read_to_end(&mut got)).await.unwrap().unwrap();
        assert_eq!(got.len() as u64, sent);
    }

    #[tokio::test]
    async fn short_messages_need_no_pipe_and_long_ones_return_it() {
        let pool = Arc::<PipePool>::default();
        let (mut client, mut server, _task) = spliced_pair(&pool).await;
        for _ in 0..100 {
            client.write_all(b"ping").await.unwrap();
            server.read_exact(&mut [0; 4]).await.unwrap();
            server.write_all(b"pong").await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
        }
        assert_eq!(pool.idle_count(), 0);
        let long = pseudo_random_bytes(1, 1 << 20);
        for _ in 0..10 {
            let mut received = vec![0; long.len()];
            let (sent, got) =
                tokio::join!(client.write_all(&long), server.read_exact(&mut received));
            sent.and(got).unwrap();
            assert!(received == long);
        }
        let returned = async {
            while pool.idle_count() != 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, returned).await.expect("one pipe has carried all of it");
    }
}
