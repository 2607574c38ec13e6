//! The protocol of this benchmark: a ClientHello with the server's name, so that every proxy can
//! route the connection, and a short reply. The rest is not TLS: proxies do not parse it, and the
//! cost of encryption would hide theirs.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};

use policy_testbed::network::NetworkNamespace;

/// The name that the proxies route.
pub(crate) const SERVER_NAME: &str = "bench.example";
/// The address of that name, one of the internet's addresses.
pub(crate) const SERVER_V4: [u8; 4] = [203, 0, 113, 10];
/// The length of the server's reply to a ClientHello, in bytes.
pub(crate) const REPLY_BYTES: usize = 128;
/// Sent after the reply: the server must send until the client closes the connection.
pub(crate) const DOWNLOAD_COMMAND: u8 = b'd';
/// Sent after the reply: the server must receive until the connection ends.
pub(crate) const UPLOAD_COMMAND: u8 = b'u';
/// The timeout of a connection that should not be silent.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's address with a port.
pub(crate) fn server_address(port: u16) -> SocketAddr {
    (IpAddr::from(SERVER_V4), port).into()
}

/// A ClientHello.
pub(crate) fn client_hello() -> Result<Arc<[u8]>> {
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = SERVER_NAME.try_into().context("the server's name is valid")?;
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes.into())
}

/// Opens a connection from a namespace and waits for the server's reply.
pub(crate) fn connect_from(from: &NetworkNamespace, hello: &[u8]) -> Result<TcpStream> {
    let _inside = from.enter()?;
    connect_and_greet(hello).context("connecting to the server by its name")
}

fn connect_and_greet(hello: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server_address(443), IO_TIMEOUT)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    stream.write_all(hello)?;
    stream.read_exact(&mut [0; REPLY_BYTES])?;
    Ok(stream)
}
