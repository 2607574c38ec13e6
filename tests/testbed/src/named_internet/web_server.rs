//! Web servers: HTTP on port 80, HTTPS on port 443, the same pages at every address. They accept
//! any host name and report their own address.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Builder, Runtime},
};
use tokio_rustls::TlsAcceptor;

use super::{
    certificate_authority::CertificateAuthority,
    web_pages::{self, PageContext},
};
use crate::{
    network::{NetworkNamespace, tcp_listener::bind_listener},
    test_servers::{HTTP_PORT, HTTPS_PORT},
};

/// The number of connections to each address.
#[derive(Clone, Default)]
pub(crate) struct ConnectionCounts(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl ConnectionCounts {
    /// The number of connections to an address.
    pub(super) fn count_for(&self, address: IpAddr) -> usize {
        let visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        visits.get(&address).copied().unwrap_or(0)
    }

    fn record(&self, address: IpAddr) {
        let mut visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *visits.entry(address).or_default() += 1;
    }
}

/// Serves both ports at an address of the calling thread's namespace.
pub(super) fn serve(
    authority: &Arc<CertificateAuthority>,
    visits: &ConnectionCounts,
    address: IpAddr,
) -> Result<()> {
    let tls = TlsAcceptor::from(Arc::new(authority.server_config(address)?));
    tokio::spawn(accept_forever(listen(address, HTTP_PORT)?, visits.clone(), None));
    tokio::spawn(accept_forever(listen(address, HTTPS_PORT)?, visits.clone(), Some(tls)));
    Ok(())
}

/// Listens in the calling thread's namespace.
pub(crate) fn listen(address: IpAddr, port: u16) -> Result<tokio::net::TcpListener> {
    let at = SocketAddr::new(address, port);
    Ok(tokio::net::TcpListener::from_std(bind_listener(at)?)?)
}

/// Serves a port of all addresses of a namespace by a thread, until the runtime is dropped.
pub(crate) fn serve_in_namespace<F>(
    namespace: &NetworkNamespace,
    port: u16,
    accept: impl FnOnce(tokio::net::TcpListener) -> F,
) -> Result<Runtime>
where
    F: Future<Output = ()> + Send + 'static,
{
    // The runtime's threads inherit the namespace.
    let _inside = namespace.enter()?;
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let entered = runtime.enter();
    tokio::spawn(accept(listen(Ipv6Addr::UNSPECIFIED.into(), port)?));
    drop(entered);
    Ok(runtime)
}

/// Accepts connections without end.
pub(crate) async fn accept_forever(
    listener: tokio::net::TcpListener,
    visits: ConnectionCounts,
    tls: Option<TlsAcceptor>,
) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        if let Ok(local) = stream.local_addr() {
            visits.record(local.ip());
            let place = PageContext { server: local, peer, sni: None };
            tokio::spawn(serve_connection(stream, place, tls.clone()));
        }
    }
}

/// Serves one connection. If it fails, the peer reports that.
async fn serve_connection(
    stream: TcpStream,
    mut place: PageContext,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return serve_http(stream, place).await };
    let stream = tls.accept(stream).await?;
    place.sni = stream.get_ref().1.server_name().map(str::to_owned);
    serve_http(stream, place).await
}

async fn serve_http<S>(stream: S, place: PageContext) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(web_pages::page_router(place));
    let mut server = http1::Builder::new();
    server.half_close(true);
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    connection.await.map_err(io::Error::other)
}
