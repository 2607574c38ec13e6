//! The TCP servers: one thread accepts connections, and each connection has its own thread.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, poll};

use super::{HTTP_PORT, SSH_PORT};

/// The greeting of a server-first protocol.
pub(crate) const SSH_GREETING: &[u8] = b"SSH-2.0-test\r\n";
/// The idle timeout of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Binds a listener for each port, on all addresses of both families.
pub(crate) fn bind_listeners(ports: &[u16]) -> Result<Vec<TcpListener>> {
    ports.iter().copied().map(bind_listener).collect()
}

fn bind_listener(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind(("::", port)).with_context(|| format!("TCP port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `ended`.
pub(crate) fn serve(listeners: &[TcpListener], ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let mut polled: Vec<_> =
            listeners.iter().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)).collect();
        if poll(&mut polled, 50_u8).is_err() {
            continue;
        }
        for listener in listeners {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || serve_connection(stream));
            }
        }
    }
}

/// Serves one connection. If it fails, the peer reports that.
fn serve_connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    match stream.local_addr()?.port() {
        HTTP_PORT => return serve_http(stream),
        SSH_PORT => stream.write_all(SSH_GREETING)?,
        _ => {}
    }
    let mut bytes = [0; 65_536];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            length => stream.write_all(&bytes[..length])?,
        }
    }
}

/// Responds to each request on a connection, regardless of its target.
fn serve_http(stream: TcpStream) -> io::Result<()> {
    let (local, peer) =
        (canonical_address(stream.local_addr()?), canonical_address(stream.peer_addr()?));
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            let body = format!("{local} answers {peer}\n");
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            reader.get_mut().write_all(answer.as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}

/// Formats an IPv4-mapped address as IPv4.
fn canonical_address(address: SocketAddr) -> String {
    address.ip().to_canonical().to_string()
}
