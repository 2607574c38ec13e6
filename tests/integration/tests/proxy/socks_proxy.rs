//! A SOCKS5 proxy in the internet that logs its requests.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use fast_socks5::{ReplyError, server::Socks5ServerProtocol, util::target_addr::TargetAddr};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use policy_testbed::{
    named_internet::{NamedInternet, WebSite, dns_zone::DnsZone},
    network::NetworkNamespace,
};

/// The usual port.
pub(crate) const SOCKS_PORT: u16 = 1080;

/// The username and password that the proxy requires.
pub(crate) const SOCKS_CREDENTIALS: (&str, &str) = ("user-of-tests", "a-password-of-tests");

/// The authentication and transport of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocksMode {
    /// Without authentication.
    NoAuth,
    /// With [`SOCKS_CREDENTIALS`].
    WithPassword,
    /// Without authentication, over TLS.
    OverTls,
}

/// A proxy. It ends on drop.
pub(crate) struct SocksProxy {
    /// Its name and address.
    pub(crate) site: WebSite,
    requests: Arc<Mutex<Vec<String>>>,
    accept_task: JoinHandle<()>,
}

impl SocksProxy {
    /// Starts a proxy at a new site.
    pub(crate) fn start(
        names: &NamedInternet,
        internet: &NetworkNamespace,
        name: &str,
        kind: SocksMode,
    ) -> Result<Self> {
        let (site, listener) = names.add_manual_site(internet, name, SOCKS_PORT)?;
        Self::serve(names, site, listener, kind)
    }

    /// Starts a proxy at an existing address of the internet.
    pub(crate) fn start_at(
        names: &NamedInternet,
        internet: &NetworkNamespace,
        at: IpAddr,
        kind: SocksMode,
    ) -> Result<Self> {
        let _inside = internet.enter()?;
        let listener = TcpListener::bind((at, SOCKS_PORT)).with_context(|| format!("TCP {at}"))?;
        let site = WebSite { name: at.to_string(), v4: at, v6: at };
        Self::serve(names, site, listener, kind)
    }

    fn serve(
        names: &NamedInternet,
        site: WebSite,
        listener: TcpListener,
        kind: SocksMode,
    ) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let _entered = names.runtime().enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let tls = TlsAcceptor::from(Arc::new(names.authority.server_config(site.v4)?));
        let log = Arc::new(Mutex::default());
        let door =
            SocksServer { mode: kind, tls, zone: names.zone.clone(), requests: Arc::clone(&log) };
        Ok(Self { site, requests: log, accept_task: tokio::spawn(accept_forever(listener, door)) })
    }

    /// The requests so far, such as `name shop.example:443` or `address 1.1.1.1:443`.
    pub(crate) fn logged_requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SocksProxy {
    fn drop(&mut self) {
        self.accept_task.abort();
    }
}

#[derive(Clone)]
struct SocksServer {
    mode: SocksMode,
    tls: TlsAcceptor,
    zone: DnsZone,
    requests: Arc<Mutex<Vec<String>>>,
}

async fn accept_forever(listener: tokio::net::TcpListener, door: SocksServer) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(door.clone().serve_connection(stream));
        }
    }
}

impl SocksServer {
    /// Serves one connection. If it fails, the peer reports that.
    async fn serve_connection(self, stream: TcpStream) -> Result<()> {
        match self.mode {
            SocksMode::OverTls => self.serve_stream(self.tls.accept(stream).await?).await,
            _ => self.serve_stream(stream).await,
        }
    }

    async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<()> {
        let client = match self.mode {
            SocksMode::WithPassword => {
                let right = |user: String, password: String| {
                    let right = (user.as_str(), password.as_str()) == SOCKS_CREDENTIALS;
                    self.log_request(format!("login {}", if right { "right" } else { "wrong" }));
                    right
                };
                Socks5ServerProtocol::accept_password_auth(stream, right).await?.0
            }
            _ => Socks5ServerProtocol::accept_no_auth(stream).await?,
        };
        let (client, _, target) = client.read_command().await?;
        self.log_request(match &target {
            TargetAddr::Ip(address) => format!("address {address}"),
            TargetAddr::Domain(name, port) => format!("name {name}:{port}"),
        });
        match self.connect_to_target(&target).await {
            Ok(mut server) => {
                let mut client = client.reply_success(server.local_addr()?).await?;
                copy_bidirectional(&mut client, &mut server).await?;
                Ok(())
            }
            Err(_) => Ok(client.reply_error(&ReplyError::HostUnreachable).await?),
        }
    }

    async fn connect_to_target(&self, target: &TargetAddr) -> io::Result<TcpStream> {
        let to: SocketAddr = match target {
            TargetAddr::Ip(address) => *address,
            TargetAddr::Domain(name, port) => {
                let address = self.zone.first_address(name);
                (address.ok_or_else(|| io::Error::other("no such name"))?, *port).into()
            }
        };
        TcpStream::connect(to).await
    }

    fn log_request(&self, line: String) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}
