//! The server in the internet: it replies to ClientHellos and then executes the client's command,
//! and serves HTTP on port 80. One thread serves all connections, except for bulk transfers, which
//! have one thread each.

use std::{
    convert::Infallible,
    io::{self, Read as _, Write as _},
    net,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    sync::oneshot,
};

use super::wire_protocol::{DOWNLOAD_COMMAND, REPLY_BYTES, UPLOAD_COMMAND, server_address};
use policy_testbed::network::NetworkNamespace;

/// Bytes per system call of a bulk transfer.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// The server. It ends on drop.
pub(crate) struct BenchServer {
    counters: Arc<ServerCounters>,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The server's counters.
#[derive(Default)]
struct ServerCounters {
    received: AtomicU64,
    open: AtomicUsize,
}

impl BenchServer {
    /// Starts the server in a namespace. It treats any bytes of the length of `hello` as a
    /// ClientHello.
    pub(crate) fn start(internet: &NetworkNamespace, hello: &[u8]) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (tls, http) = {
            let (_inside, _runtime) = (internet.enter()?, runtime.enter());
            (bind_listener(443)?, bind_listener(80)?)
        };
        let seen = Arc::new(ServerCounters::default());
        let (end, ended) = oneshot::channel();
        let hello = hello.len();
        let thread = thread::spawn({
            let seen = Arc::clone(&seen);
            move || serve(runtime, &seen, hello, tls, http, ended)
        });
        Ok(Self { counters: seen, shutdown: Some(end), thread: Some(thread) })
    }

    /// The bytes received by uploads so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.counters.received.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub(crate) fn open_connections(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds in the calling thread's namespace.
fn bind_listener(port: u16) -> Result<TcpListener> {
    let listener = net::TcpListener::bind(server_address(port))
        .with_context(|| format!("listening on port {port} in the internet"))?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

fn serve(
    runtime: Runtime,
    seen: &Arc<ServerCounters>,
    hello: usize,
    tls: TcpListener,
    http: TcpListener,
    ended: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::select! {
            () = accept(&tls, seen, |stream, seen| serve_greeting(stream, seen, hello)) => {}
            () = accept(&http, seen, |stream, _| serve_http(stream)) => {}
            _ = ended => {}
        }
    });
    // Bulk transfers end with their clients.
    runtime.shutdown_background();
}

/// Accepts connections without end. If one fails, the client reports that.
async fn accept<F, O>(
    listener: &TcpListener,
    seen: &Arc<ServerCounters>,
    serve: impl Fn(TcpStream, Arc<ServerCounters>) -> F,
) where
    F: Future<Output = O> + Send + 'static,
    O: Send,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let seen = Arc::clone(seen);
        let served = serve(stream, Arc::clone(&seen));
        tokio::spawn(async move {
            seen.open.fetch_add(1, Ordering::Relaxed);
            served.await;
            seen.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve_greeting(
    mut stream: TcpStream,
    seen: Arc<ServerCounters>,
    hello: usize,
) -> io::Result<()> {
    stream.read_exact(&mut vec![0; hello]).await?;
    stream.write_all(&[b'.'; REPLY_BYTES]).await?;
    let mut command = [0];
    if stream.read(&mut command).await? == 0 {
        return Ok(());
    }
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    match command[0] {
        DOWNLOAD_COMMAND => drop(thread::spawn(move || send_forever(stream))),
        UPLOAD_COMMAND => drop(thread::spawn(move || receive_forever(stream, &seen))),
        _ => {}
    }
    Ok(())
}

fn send_forever(mut stream: net::TcpStream) {
    let chunk = vec![0; CHUNK_BYTES];
    while stream.write_all(&chunk).is_ok() {}
}

fn receive_forever(mut stream: net::TcpStream, seen: &ServerCounters) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        seen.received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Responds to every request on a connection with a short body.
async fn serve_http(stream: TcpStream) -> hyper::Result<()> {
    let body = Bytes::from_static(&[b'.'; REPLY_BYTES]);
    let service = service_fn(move |_| {
        let answer = Response::new(Full::new(body.clone()));
        async move { Ok::<_, Infallible>(answer) }
    });
    let _ = stream.set_nodelay(true);
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
}
