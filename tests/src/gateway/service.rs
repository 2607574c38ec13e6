//! Services in a sandbox: those that a test plays itself, byte by byte, and the pages of
//! [`names`](crate::names).

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream},
};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use crate::{
    names::web::{self, Visits},
    patience::{PATIENCE, eventually},
    stage::OrFail as _,
    world::Namespace,
};

/// A port of which the test itself is the service.
pub struct Service(TcpListener);

impl Service {
    /// Listens at a port of all addresses of a namespace.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub fn listen(namespace: &Namespace, port: u16) -> Result<Self> {
        Self::listen_at(namespace, (Ipv6Addr::UNSPECIFIED, port))
    }

    /// Listens at one address of a namespace.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub fn listen_at(namespace: &Namespace, at: (Ipv6Addr, u16)) -> Result<Self> {
        let _inside = namespace.enter()?;
        let listener = TcpListener::bind(at).with_context(|| format!("port {}", at.1))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The next connection.
    #[track_caller]
    pub fn accept(&self) -> Served {
        let accepted = eventually("the gateway connects", || self.0.accept().ok());
        let (stream, _) = accepted.or_fail("accepting");
        stream.set_nonblocking(false).or_fail("a blocking socket");
        stream.set_read_timeout(Some(*PATIENCE)).or_fail("a limit");
        stream.set_nodelay(true).or_fail("no delay");
        Served { stream, unread: Vec::new() }
    }

    /// Whether nobody waits to be accepted.
    pub fn is_quiet(&self) -> bool {
        self.0.accept().is_err()
    }
}

/// A connection that came to a [`Service`].
pub struct Served {
    /// The connection.
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Served {
    /// What comes up to and with `end`.
    #[track_caller]
    pub fn until(&mut self, end: &str) -> String {
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

    /// The head of a request.
    #[track_caller]
    pub fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    /// Sends text.
    #[track_caller]
    pub fn say(&mut self, text: &str) -> &mut Self {
        self.stream.write_all(text.as_bytes()).or_fail("sending to the gateway");
        self
    }

    /// What else comes until the connection ends, in whatever way.
    #[track_caller]
    pub fn rest(&mut self) -> String {
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
        let length = self.stream.read(&mut bytes)?;
        self.unread.extend_from_slice(&bytes[..length]);
        Ok(length)
    }
}

/// The pages of [`names`](crate::names), in a sandbox; they end on drop.
pub struct Website {
    _runtime: Runtime,
}

impl Website {
    /// Serves them at a port of all addresses of a namespace, inside TLS if told how.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub fn start(namespace: &Namespace, port: u16, tls: Option<TlsAcceptor>) -> Result<Self> {
        // The runtime's threads stay in the namespace that they are started in.
        let _inside = namespace.enter()?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let entered = runtime.enter();
        let listener = web::listen("::".parse()?, port)?;
        tokio::spawn(web::accept(listener, Visits::default(), tls));
        drop(entered);
        Ok(Self { _runtime: runtime })
    }
}
