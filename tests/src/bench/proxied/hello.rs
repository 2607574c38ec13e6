//! What a connection of this benchmark begins with: a ClientHello with the server's name, so that
//! every proxy can route it, and a short answer. What follows is not TLS: proxies do not look, and
//! the cost of ciphers would hide theirs.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};

use crate::world::Namespace;

/// The name that the proxies know.
pub const NAME: &str = "bench.example";
/// What it stands for: one of the internet's addresses.
pub const SERVER: [u8; 4] = [203, 0, 113, 10];
/// Bytes that the server answers to a ClientHello.
pub const REPLY: usize = 128;
/// Sent behind the answer: the server is to send for as long as it can.
pub const DOWNLOAD: u8 = b'd';
/// Sent behind the answer: the server is to take all that comes.
pub const UPLOAD: u8 = b'u';
/// How long a connection may be silent that should not be.
const LIMIT: Duration = Duration::from_secs(10);

/// The server's address for a port.
pub fn server(port: u16) -> SocketAddr {
    (IpAddr::from(SERVER), port).into()
}

/// A ClientHello.
pub fn client_hello() -> Result<Arc<[u8]>> {
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = NAME.try_into().context("the server's name is valid")?;
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes.into())
}

/// A connection out of a namespace that the server has answered.
pub fn connect(from: &Namespace, hello: &[u8]) -> Result<TcpStream> {
    let _inside = from.enter()?;
    greeted(hello).context("connecting to the server by its name")
}

fn greeted(hello: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server(443), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(hello)?;
    stream.read_exact(&mut [0; REPLY])?;
    Ok(stream)
}
