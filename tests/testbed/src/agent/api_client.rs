//! A minimal client of the agent's HTTP API over its Unix socket. Tests can also send requests that
//! a well-behaved client would not.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::AgentProcess;
use crate::wait::WAIT_LIMIT;

/// The time limit of a response, as a multiple of [`WAIT_LIMIT`].
const RESPONSE_TIMEOUT_FACTOR: u32 = 2;

/// A response of the API.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The decoded body.
    pub body: String,
}

impl ApiResponse {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = headers.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim())
    }

    /// The body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

impl AgentProcess {
    /// Sends a request to the API, with a JSON body unless `body` is empty.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<ApiResponse> {
        send_request_to(&self.socket_path(), method, path, body)
    }

    /// Sends the bytes of a request unchanged and reads the response until the connection closes.
    /// The request should ask for `Connection: close`.
    pub fn send_raw(&self, request: &[u8]) -> Result<ApiResponse> {
        send_raw_to(&self.socket_path(), request)
    }
}

/// Sends a request to the agent on this socket, which may be about to exit.
pub fn send_request_to(socket: &Path, method: &str, path: &str, body: &str) -> Result<ApiResponse> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    send_raw_to(socket, request.as_bytes()).with_context(|| format!("{method} {path}"))
}

fn send_raw_to(socket: &Path, request: &[u8]) -> Result<ApiResponse> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT_FACTOR * *WAIT_LIMIT))?;
    stream.write_all(request).context("sending the request")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("reading the answer")?;
    parse_response(&bytes).context("the answer is no HTTP")
}

fn parse_response(bytes: &[u8]) -> Result<ApiResponse> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("has no end of its header")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.context("has no status code")?;
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if chunked { decode_chunked(body)? } else { body.to_owned() };
    Ok(ApiResponse { status: code, head: head.to_owned(), body })
}

fn decode_chunked(mut rest: &str) -> Result<String> {
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
