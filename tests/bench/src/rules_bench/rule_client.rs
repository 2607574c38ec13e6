//! A client in a sandbox with one TLS connection, which stays open between requests.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{
    super::proxy_bench::wire_protocol::{SERVER_NAME, server_address},
    rule_peers::RESPONSE_BYTES,
};
use policy_testbed::{network::NetworkNamespace, probe, test_servers::HTTPS_PORT};

/// How long the server may take. The measurement fails if this expires.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The client.
pub(crate) struct RuleClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    request: String,
}

impl RuleClient {
    /// Connects from a namespace and completes a request, with these additional header lines.
    pub(crate) fn open(
        inside: &NetworkNamespace,
        config: &Arc<ClientConfig>,
        header_lines: &str,
    ) -> Result<Self> {
        let stream = probe::connect(inside, server_address(HTTPS_PORT))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let name = SERVER_NAME.try_into().context("the server's name is valid")?;
        let tls = ClientConnection::new(Arc::clone(config), name)?;
        let request = format!("GET / HTTP/1.1\r\nHost: {SERVER_NAME}\r\n{header_lines}\r\n");
        let mut client = Self { stream: StreamOwned::new(tls, stream), request };
        client.send_request()?;
        Ok(client)
    }

    /// Completes a request, and returns the time until the first byte of the response.
    pub(crate) fn send_request(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        self.stream.write_all(self.request.as_bytes())?;
        let (mut response, mut first_byte) = (Vec::new(), None);
        while !is_complete(&response) {
            let mut chunk = [0; 4096];
            let length = self.stream.read(&mut chunk)?;
            ensure!(length > 0, "the connection ended");
            first_byte.get_or_insert_with(|| begin.elapsed());
            response.extend_from_slice(&chunk[..length]);
        }
        let status = response.get(9..12).unwrap_or_default();
        ensure!(status == b"200", "answered with {}", String::from_utf8_lossy(&response));
        first_byte.context("the response is empty")
    }
}

/// Whether a response has arrived, or an error of any length.
fn is_complete(response: &[u8]) -> bool {
    let end_of_head = response.windows(4).position(|window| window == b"\r\n\r\n");
    end_of_head.is_some_and(|at| {
        !response.starts_with(b"HTTP/1.1 200") || response.len() >= at + 4 + RESPONSE_BYTES
    })
}
