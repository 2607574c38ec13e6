//! The agent's HTTP API over its Unix socket, written plainly, so that tests can send what a
//! well-behaved client would not.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Agent;
use crate::patience::PATIENCE;

/// How long an answer may take: so many times what anything may take.
const LONGEST: u32 = 2;

/// An answer of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    /// The body, decoded.
    pub body: String,
}

impl Answer {
    /// A header, by its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = headers.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

impl Agent {
    /// Asks the API, with a JSON body unless that is empty.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        request_at(&self.socket(), method, path, body)
    }

    /// Sends a request as it is and reads the answer to its end: the request should ask for the
    /// connection to be closed.
    pub fn exchange(&self, request: &[u8]) -> Result<Answer> {
        exchange_at(&self.socket(), request)
    }
}

/// Asks the API of whichever agent has this socket, which may be about to end.
pub fn request_at(socket: &Path, method: &str, path: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    exchange_at(socket, request.as_bytes()).with_context(|| format!("{method} {path}"))
}

fn exchange_at(socket: &Path, request: &[u8]) -> Result<Answer> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(LONGEST * *PATIENCE))?;
    stream.write_all(request).context("sending the request")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("reading the answer")?;
    parse(&bytes).context("the answer is no HTTP")
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("has no end of its header")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.context("has no status code")?;
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if chunked { unchunked(body)? } else { body.to_owned() };
    Ok(Answer { code, head: head.to_owned(), body })
}

fn unchunked(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").context("a chunk has no length")?;
        let length = usize::from_str_radix(length.trim(), 16).context("a chunk's length")?;
        if length == 0 {
            return Ok(body);
        }
        ensure!(after.len() > length, "a chunk is cut off");
        body.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
}
