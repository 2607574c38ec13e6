//! Web servers: HTTP at port 80, HTTPS at port 443, the same pages at every address. Whom they are
//! taken for is up to the client; they say who they are.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    authority::Authority,
    pages::{self, Place},
};
use crate::server::{HTTP, HTTPS};

/// How many connections came to each address.
#[derive(Clone, Default)]
pub(crate) struct Visits(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Visits {
    /// Connections to an address.
    pub(super) fn to(&self, address: IpAddr) -> usize {
        let visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        visits.get(&address).copied().unwrap_or(0)
    }

    fn count(&self, address: IpAddr) {
        let mut visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *visits.entry(address).or_default() += 1;
    }
}

/// Serves both ports at an address of the namespace that the thread is in.
pub(super) fn serve(authority: &Arc<Authority>, visits: &Visits, address: IpAddr) -> Result<()> {
    let tls = TlsAcceptor::from(Arc::new(authority.server(address)?));
    tokio::spawn(accept(listen(address, HTTP)?, visits.clone(), None));
    tokio::spawn(accept(listen(address, HTTPS)?, visits.clone(), Some(tls)));
    Ok(())
}

/// Listens in the namespace that the thread is in.
pub(crate) fn listen(address: IpAddr, port: u16) -> Result<tokio::net::TcpListener> {
    let at = SocketAddr::new(address, port);
    let listener = TcpListener::bind(at).with_context(|| format!("TCP {at}"))?;
    listener.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}

/// Serves a listener for ever.
pub(crate) async fn accept(
    listener: tokio::net::TcpListener,
    visits: Visits,
    tls: Option<TlsAcceptor>,
) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        if let Ok(local) = stream.local_addr() {
            visits.count(local.ip());
            let place = Place { server: local, peer, sni: None };
            tokio::spawn(answer(stream, place, tls.clone()));
        }
    }
}

/// A connection that fails has a peer that notices.
async fn answer(stream: TcpStream, mut place: Place, tls: Option<TlsAcceptor>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return talk(stream, place).await };
    let stream = tls.accept(stream).await?;
    place.sni = stream.get_ref().1.server_name().map(str::to_owned);
    talk(stream, place).await
}

async fn talk<S>(stream: S, place: Place) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(pages::at(place));
    let mut server = http1::Builder::new();
    server.half_close(true);
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    connection.await.map_err(io::Error::other)
}
