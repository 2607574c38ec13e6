//! HTTP/1 written byte by byte, including requests that no library would send.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    network::NetworkNamespace,
    probe,
    testbed::{OrFail as _, TestSandbox},
    wait::retry_interrupted,
};

/// A connection on which the test writes HTTP itself.
pub struct RawHttpConnection {
    stream: TcpStream,
    unread: Vec<u8>,
    was_reset: bool,
}

/// A response.
#[derive(Clone, Debug)]
pub struct RawHttpResponse {
    /// The status code.
    pub status: u16,
    /// Whether the response announces that the server closes the connection.
    pub announces_close: bool,
    /// The body.
    pub body: String,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseKind {
    /// By a FIN.
    Clean,
    /// By a reset.
    Reset,
}

impl TestSandbox {
    /// Connects to a port of an address.
    #[track_caller]
    pub fn connect_raw(&self, to: IpAddr, port: u16) -> RawHttpConnection {
        RawHttpConnection::connect(&self.namespace, (to, port).into()).or_fail("connecting")
    }
}

impl TestSandbox {
    /// Connects to a port of an address, sends the bytes, and waits for the end of the connection.
    #[track_caller]
    pub fn close_after(&self, to: IpAddr, port: u16, bytes: impl AsRef<[u8]>) -> CloseKind {
        match RawHttpConnection::connect(&self.namespace, (to, port).into()) {
            Ok(mut talk) => talk.send(bytes).read_to_close(),
            Err(error) if is_connection_reset(&error) => CloseKind::Reset,
            Err(error) => panic!("connecting: {error:#}"),
        }
    }
}

/// The peer may reset a connection before `connect` returns.
fn is_connection_reset(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

impl RawHttpConnection {
    /// Connects from inside a namespace.
    pub fn connect(inside: &NetworkNamespace, to: SocketAddr) -> Result<Self> {
        Ok(Self { stream: probe::connect(inside, to)?, unread: Vec::new(), was_reset: false })
    }

    /// Sends bytes. If the peer has already closed the connection, its response shows that.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let said = self.stream.write_all(bytes.as_ref());
        self.was_reset |= said.is_err(); // after this error, reads return a normal end of file
        self
    }

    /// Sends a GET request with this host.
    pub fn send_get(&mut self, host: &str) -> &mut Self {
        self.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// The underlying stream.
    pub const fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads the next response.
    #[track_caller]
    pub fn read_response(&mut self) -> RawHttpResponse {
        self.try_read_response().or_fail("reading an answer")
    }

    /// Reads the next response, or returns the reason why there is none.
    pub fn try_read_response(&mut self) -> Result<RawHttpResponse> {
        let (mut reply, length) = loop {
            match parse_head(&self.unread)? {
                Some((consumed, reply, length)) => {
                    self.unread.drain(..consumed);
                    break (reply, length);
                }
                None if self.read_more()? == 0 => bail!("it ends within {:?}", self.unread_text()),
                None => {}
            }
        };
        while length.is_none_or(|length| self.unread.len() < length) {
            if self.read_more()? == 0 {
                break;
            }
        }
        let length = length.unwrap_or(self.unread.len()).min(self.unread.len());
        let body: Vec<u8> = self.unread.drain(..length).collect();
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    /// Reads up to and including `end`.
    #[track_caller]
    pub fn read_until(&mut self, end: &str) -> String {
        loop {
            let found = self.unread.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let text: Vec<u8> = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&text).into_owned();
            }
            let read = self.read_more().or_fail("reading");
            assert!(read > 0, "it ends after {:?}", self.unread_text());
        }
    }

    /// The bytes that were read beyond the last response.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Asserts that the bytes read are exactly one TLS alert with this description (RFC 8446, 6).
    #[track_caller]
    pub fn assert_alert(&self, description: u8) {
        match self.unread[..] {
            [21, 3, 1..=3, 0, 2, 2, said] => assert_eq!(said, description),
            _ => panic!("{:?}", self.unread),
        }
    }

    /// Reads all remaining bytes and returns how the connection ends.
    #[track_caller]
    pub fn read_to_close(&mut self) -> CloseKind {
        loop {
            match self.read_more() {
                Ok(0) if self.was_reset => return CloseKind::Reset,
                Ok(0) => return CloseKind::Clean,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return CloseKind::Reset;
                }
                Err(error) => panic!("it does not end, after {:?}: {error}", self.unread_text()),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 65_536];
        let length = retry_interrupted(|| self.stream.read(&mut bytes))?;
        self.unread.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn unread_text(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}

impl RawHttpResponse {
    /// The JSON page of a test web server; null if none responded.
    pub fn page_json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// Asserts that the response is a refusal with this status and reason.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, reason: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.contains(reason), "{reason} is not in {self:?}");
    }
}

/// Parses the head of a response once it is complete. Returns its length, the response, and the
/// length of the body.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, RawHttpResponse, Option<usize>)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).context("what came back is no HTTP")?;
    let httparse::Status::Complete(consumed) = parsed else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_lowercase())
    };
    let length = header("content-length").and_then(|length| length.parse().ok());
    let closes = header("connection").is_some_and(|value| value.contains("close"));
    let status = response.code.context("a status code")?;
    let length = if matches!(status, 100..200 | 204 | 304) { Some(0) } else { length };
    Ok(Some((
        consumed,
        RawHttpResponse { status, announces_close: closes, body: String::new() },
        length,
    )))
}
