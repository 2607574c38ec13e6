//! A service that records every byte and responds to each request with the request's own head. It
//! uses no HTTP library: this module defines what counts as a request.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, poll};

use crate::network::{NetworkNamespace, tcp_listener::bind_listener};

/// The idle timeout of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How the client preface of HTTP/2 begins, and no request of HTTP/1 (RFC 9113, 3.4).
const HTTP2_PREFACE_START: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The service. It accepts no connections after drop.
pub struct RecordingService {
    traffic: Arc<Mutex<RecordedTraffic>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct RecordedTraffic {
    connections: usize,
    heads: Vec<String>,
    bytes: Vec<u8>,
}

impl RecordingService {
    /// Starts the service on a port of all addresses of a namespace.
    ///
    /// # Errors
    /// The port is unavailable.
    pub fn start(namespace: &NetworkNamespace, port: u16) -> Result<Self> {
        let listener = {
            let _inside = namespace.enter()?;
            bind_listener((Ipv6Addr::UNSPECIFIED, port))?
        };
        let (seen, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, ended) = (Arc::clone(&seen), Arc::clone(&ended));
            move || accept_until_stopped(&listener, &seen, &ended)
        });
        Ok(Self { traffic: seen, stopped: ended, thread: Some(thread) })
    }

    /// The heads of all requests, each with its final empty line.
    pub fn request_heads(&self) -> Vec<String> {
        lock_traffic(&self.traffic).heads.clone()
    }

    /// The number of connections so far.
    pub fn connection_count(&self) -> usize {
        lock_traffic(&self.traffic).connections
    }

    /// All received bytes, as text.
    pub fn received_text(&self) -> String {
        String::from_utf8_lossy(&lock_traffic(&self.traffic).bytes).into_owned()
    }

    /// The lines of the only request so far.
    #[track_caller]
    pub fn only_request(&self) -> Vec<String> {
        let heads = self.request_heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads.iter().flat_map(|head| head.lines()).map(str::to_owned).collect()
    }
}

impl Drop for RecordingService {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock_traffic(seen: &Mutex<RecordedTraffic>) -> MutexGuard<'_, RecordedTraffic> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept_until_stopped(
    listener: &TcpListener,
    seen: &Arc<Mutex<RecordedTraffic>>,
    ended: &AtomicBool,
) {
    while !ended.load(Ordering::Relaxed) {
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, 50_u8).is_err() {
            continue;
        }
        while let Ok((stream, _)) = listener.accept() {
            lock_traffic(seen).connections += 1;
            let seen = Arc::clone(seen);
            thread::spawn(move || serve(stream, &seen));
        }
    }
}

/// Serves one connection. If it fails, the peer reports that.
fn serve(mut stream: TcpStream, seen: &Mutex<RecordedTraffic>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let (mut unread, mut bytes) = (Vec::new(), [0; 65_536]);
    loop {
        // It speaks HTTP/1 only, and a question for HTTP/2 is no request.
        if unread.starts_with(HTTP2_PREFACE_START) {
            return stream.write_all(super::DECLINE_HTTP2.as_bytes());
        }
        while let Some((head, length)) = first_request(&unread) {
            unread.drain(..length);
            let answer = echo_response(&head);
            lock_traffic(seen).heads.push(head);
            stream.write_all(answer.as_bytes())?;
        }
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        unread.extend_from_slice(&bytes[..length]);
        if !unread.starts_with(HTTP2_PREFACE_START) {
            lock_traffic(seen).bytes.extend_from_slice(&bytes[..length]);
        }
    }
}

fn echo_response(head: &str) -> String {
    let body = if head.starts_with("HEAD ") { "" } else { head };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", head.len())
}

/// Returns the head of the first request and the length of the whole request, once it is complete.
fn first_request(bytes: &[u8]) -> Option<(String, usize)> {
    let begin = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..begin]).into_owned();
    let field = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let mut named = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim().to_owned())
    };
    let body = &bytes[begin..];
    let length = if field("transfer-encoding").is_some() {
        chunked_body_length(body)?
    } else {
        field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    };
    (body.len() >= length).then_some((head, begin + length))
}

/// Returns the length of a chunked body once it is complete.
fn chunked_body_length(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = find(&body[at..], b"\r\n")?;
        let size = String::from_utf8_lossy(&body[at..at + line]);
        let size = size.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        at += line + 2;
        if size == 0 {
            break;
        }
        at += size + 2;
        body.get(at..)?;
    }
    // Trailers, up to the empty line.
    loop {
        let line = find(&body[at..], b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
