//! Services in a sandbox: those that the test itself implements byte by byte, and the pages of
//! [`named_internet`](crate::named_internet).

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream},
};

use anyhow::Result;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::{
    named_internet::web_server::{self, ConnectionCounts},
    network::{NetworkNamespace, tcp_listener::bind_listener},
    testbed::OrFail as _,
    wait::{WAIT_LIMIT, eventually, retry_interrupted},
};

/// A listening port whose service is the test itself.
pub struct ManualService(TcpListener);

impl ManualService {
    /// Listens on a port of all addresses of a namespace.
    ///
    /// # Errors
    /// The port is unavailable.
    pub fn listen(namespace: &NetworkNamespace, port: u16) -> Result<Self> {
        Self::listen_at(namespace, (Ipv6Addr::UNSPECIFIED, port))
    }

    /// Listens on one address of a namespace.
    ///
    /// # Errors
    /// The address is unavailable.
    pub fn listen_at(namespace: &NetworkNamespace, at: (Ipv6Addr, u16)) -> Result<Self> {
        let _inside = namespace.enter()?;
        Ok(Self(bind_listener(at)?))
    }

    /// Accepts the next connection.
    #[track_caller]
    pub fn accept(&self) -> ServiceConnection {
        let accepted = eventually("the gateway connects", || self.0.accept().ok());
        let (stream, _) = accepted.or_fail("accepting");
        stream.set_nonblocking(false).or_fail("a blocking socket");
        stream.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("a limit");
        stream.set_nodelay(true).or_fail("no delay");
        ServiceConnection { stream, unread: Vec::new() }
    }

    /// Accepts the connection on which the gateway asks for HTTP/2, and declines.
    #[track_caller]
    pub fn decline_http2(&self) {
        let mut asked = self.accept();
        asked.read_until("PRI * HTTP/2.0\r\n\r\n");
        asked.send(super::DECLINE_HTTP2);
    }

    /// Returns whether no connection is waiting to be accepted.
    pub fn has_no_pending_connection(&self) -> bool {
        self.0.accept().is_err()
    }
}

/// A connection to a [`ManualService`].
pub struct ServiceConnection {
    /// The stream of the connection.
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl ServiceConnection {
    /// Reads up to and including `end`.
    #[track_caller]
    pub fn read_until(&mut self, end: &str) -> String {
        loop {
            let found = self.unread.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let rest = self.unread.split_off(at + end.len());
                let text = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8_lossy(&text).into_owned();
            }
            let read = self.read_more().or_fail("reading what the gateway sends");
            assert!(read > 0, "it ends after {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Reads the head of a request.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n")
    }

    /// Sends text.
    #[track_caller]
    pub fn send(&mut self, text: &str) -> &mut Self {
        self.stream.write_all(text.as_bytes()).or_fail("sending to the gateway");
        self
    }

    /// Reads the rest until the connection ends, normally or by a reset.
    #[track_caller]
    pub fn read_to_close(&mut self) -> String {
        loop {
            match self.read_more() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the gateway's connection does not end: {error}"),
            }
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 65_536];
        let length = retry_interrupted(|| self.stream.read(&mut bytes))?;
        self.unread.extend_from_slice(&bytes[..length]);
        Ok(length)
    }
}

/// The pages of [`named_internet`](crate::named_internet), served in a sandbox until drop.
pub struct SandboxWebsite {
    _runtime: Runtime,
}

impl SandboxWebsite {
    /// Serves the pages on a port of all addresses of a namespace, over TLS if configured.
    ///
    /// # Errors
    /// The port is unavailable.
    pub fn start(
        namespace: &NetworkNamespace,
        port: u16,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self> {
        let visits = ConnectionCounts::default();
        let accept = |listener| web_server::accept_forever(listener, visits, tls);
        Ok(Self { _runtime: web_server::serve_in_namespace(namespace, port, accept)? })
    }
}
