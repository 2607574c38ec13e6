//! Connections from the gateway into a sandbox, in whatever network namespace its interface is.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd as _, IntoRawFd as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::spawn_blocking,
    time::timeout,
};

use crate::dataplane::within;

/// How long a sandbox may take to accept a connection.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Where a sandbox can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace of its interface; `None`: the agent's own.
    pub netns: Option<PathBuf>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Connects to a port of a sandbox, at the first of its addresses that accepts.
///
/// # Errors
/// None does; the error is the last one's.
pub async fn connect(place: &Place, port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in &place.addresses {
        let to = SocketAddr::new(*address, port);
        let connecting = async { socket(place, to).await?.connect(to).await };
        match timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_keepalive(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// A socket in the sandbox's namespace: where it is made is where it stays.
async fn socket(place: &Place, to: SocketAddr) -> io::Result<TcpSocket> {
    let Some(netns) = place.netns.clone() else {
        return if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    };
    let made = spawn_blocking(move || {
        within(Some(&netns), || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
            Ok(socket)
        })
    });
    let socket = made.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
    // SAFETY: the descriptor is a TCP socket, and owned by nobody else from here on.
    Ok(unsafe { TcpSocket::from_raw_fd(socket.into_raw_fd()) })
}

/// TLS towards services on `httpsPorts`. Their certificates are whatever they are: what reaches a
/// sandbox's address is the sandbox.
///
/// # Errors
/// The cryptography cannot be set up.
pub fn tls() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let any = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    let mut tls = builder.with_custom_certificate_verifier(any).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
