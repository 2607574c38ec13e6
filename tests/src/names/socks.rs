//! A SOCKS5 proxy in the internet, which notes what it is asked for.

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

use super::{Names, site::Site, zone::Zone};
use crate::world::Namespace;

/// The usual port.
pub const PORT: u16 = 1080;

/// Username and password that the proxy wants.
pub const CREDENTIALS: (&str, &str) = ("user-of-tests", "a-password-of-tests");

/// How clients speak with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anyone may.
    Open,
    /// With [`CREDENTIALS`].
    WithPassword,
    /// Anyone may, over TLS.
    OverTls,
}

/// A proxy; it ends on drop.
pub struct Socks {
    /// Its name and address.
    pub site: Site,
    log: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Socks {
    /// Starts one at a new site.
    pub fn start(names: &Names, internet: &Namespace, name: &str, kind: Kind) -> Result<Self> {
        let (site, listener) = names.own_site(internet, name, PORT)?;
        Self::serve(names, site, listener, kind)
    }

    /// Starts one at an address that the internet has already.
    pub fn start_at(names: &Names, internet: &Namespace, at: IpAddr, kind: Kind) -> Result<Self> {
        let _inside = internet.enter()?;
        let listener = TcpListener::bind((at, PORT)).with_context(|| format!("TCP {at}"))?;
        let site = Site { name: at.to_string(), v4: at, v6: at };
        Self::serve(names, site, listener, kind)
    }

    fn serve(names: &Names, site: Site, listener: TcpListener, kind: Kind) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let _entered = names.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let tls = TlsAcceptor::from(Arc::new(names.authority.server(site.v4)?));
        let log = Arc::new(Mutex::default());
        let door = Doorkeeper { kind, tls, zone: names.zone.clone(), log: Arc::clone(&log) };
        Ok(Self { site, log, accepting: tokio::spawn(accept(listener, door)) })
    }

    /// What it was asked for, like `name shop.example:443` or `address 1.1.1.1:443`.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
struct Doorkeeper {
    kind: Kind,
    tls: TlsAcceptor,
    zone: Zone,
    log: Arc<Mutex<Vec<String>>>,
}

async fn accept(listener: tokio::net::TcpListener, door: Doorkeeper) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(door.clone().answer(stream));
        }
    }
}

impl Doorkeeper {
    /// A connection that fails has a peer that notices.
    async fn answer(self, stream: TcpStream) -> Result<()> {
        match self.kind {
            Kind::OverTls => self.serve(self.tls.accept(stream).await?).await,
            _ => self.serve(stream).await,
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<()> {
        let client = match self.kind {
            Kind::WithPassword => {
                let right = |user: String, password: String| {
                    let right = (user.as_str(), password.as_str()) == CREDENTIALS;
                    self.note(format!("login {}", if right { "right" } else { "wrong" }));
                    right
                };
                Socks5ServerProtocol::accept_password_auth(stream, right).await?.0
            }
            _ => Socks5ServerProtocol::accept_no_auth(stream).await?,
        };
        let (client, _, target) = client.read_command().await?;
        self.note(match &target {
            TargetAddr::Ip(address) => format!("address {address}"),
            TargetAddr::Domain(name, port) => format!("name {name}:{port}"),
        });
        match self.connect(&target).await {
            Ok(mut server) => {
                let mut client = client.reply_success(server.local_addr()?).await?;
                copy_bidirectional(&mut client, &mut server).await?;
                Ok(())
            }
            Err(_) => Ok(client.reply_error(&ReplyError::HostUnreachable).await?),
        }
    }

    async fn connect(&self, target: &TargetAddr) -> io::Result<TcpStream> {
        let to: SocketAddr = match target {
            TargetAddr::Ip(address) => *address,
            TargetAddr::Domain(name, port) => {
                let address = self.zone.address(name);
                (address.ok_or_else(|| io::Error::other("no such name"))?, *port).into()
            }
        };
        TcpStream::connect(to).await
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}
