//! `egressProxy`: goes on through a SOCKS5 proxy. Whatever fails, the connection fails: nothing goes
//! past the proxy.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use policy_common::reason::Reason;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{io::AsyncRead, io::AsyncWrite, sync::OnceCell, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_socks::{TargetAddr, tcp::Socks5Stream};

use super::{
    dial::{Target, candidates, connect},
    means::Means,
    socket::Stream,
    upstream::{Carrier, Upstream},
    verdict::End,
};
use crate::policy::{Credentials, Host, Tunnel, TunnelTls};

/// Connects to the target through the tunnel.
pub async fn through(means: &Means, tunnel: &Tunnel, target: &Target) -> Result<Upstream, End> {
    let made = timeout(means.patience.tunnel, make(means, tunnel, target)).await;
    match made.unwrap_or_else(|_| Err(anyhow::anyhow!("it took too long"))) {
        Ok(upstream) => Ok(upstream),
        Err(error) => {
            tracing::debug!("egressProxy {tunnel}: {error:#}");
            Err(Reason::EgressProxyFailed.into())
        }
    }
}

async fn make(means: &Means, tunnel: &Tunnel, target: &Target) -> Result<Upstream> {
    let floor = &means.law.floor;
    let refusal = |address| (!Tunnel::admits(floor, address)).then(|| Reason::PlatformDeny.into());
    let proxy = Target { host: tunnel.host.clone(), port: tunnel.port };
    let addresses = candidates(means, &proxy, refusal).await.map_err(failure)?;
    let stream = connect(means, &addresses, tunnel.port).await.map_err(failure)?;
    let Upstream { socket, .. } = Upstream::plain(stream);
    let stream = Stream(Arc::clone(&socket));
    let credentials = tunnel.credentials.as_ref();
    let carrier = match &tunnel.tls {
        None => Carrier::Plain(handshake(stream, credentials, target).await?),
        Some(tls) => {
            let connector = means.authorities.connector(tls).await?;
            let encrypted = connector.connect(server_name(&tls.server)?, stream).await?;
            Carrier::Encrypted(handshake(Box::new(encrypted), credentials, target).await?)
        }
    };
    Ok(Upstream { socket, carrier })
}

fn failure(end: End) -> anyhow::Error {
    match end {
        End::Gone => anyhow::anyhow!("the connection is closed"),
        End::Refused(grounds) => anyhow::anyhow!("{}", grounds.reason.help()),
    }
}

/// RFC 1928, RFC 1929. A name is handed over as a name.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    credentials: Option<&Credentials>,
    target: &Target,
) -> Result<S> {
    let to = match &target.host {
        Host::Name(name) => TargetAddr::Domain(name.as_str().into(), target.port),
        Host::Address(address) => TargetAddr::Ip((*address, target.port).into()),
    };
    let made = match credentials {
        None => Socks5Stream::connect_with_socket(stream, to).await,
        Some(Credentials { username, password }) => {
            let password = password.reveal();
            Socks5Stream::connect_with_password_and_socket(stream, to, username, password).await
        }
    };
    Ok(made.context("SOCKS5")?.into_inner())
}

fn server_name(server: &Host) -> Result<ServerName<'static>> {
    Ok(match server {
        Host::Address(address) => ServerName::IpAddress((*address).into()),
        Host::Name(name) => ServerName::try_from(name.to_string())?,
    })
}

/// Configurations of TLS that were needed before. Reading the public's certificates takes tens of
/// milliseconds.
#[derive(Default)]
pub struct Authorities {
    public: OnceCell<Arc<ClientConfig>>,
    given: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

/// Configurations that are kept, each of some KiB.
const KEPT: usize = 256;

impl Authorities {
    async fn connector(&self, tls: &TunnelTls) -> Result<TlsConnector> {
        let config = match &tls.ca {
            Some(pem) => self.of(pem)?,
            None => self.of_the_public().await?,
        };
        Ok(config.into())
    }

    fn of(&self, pem: &str) -> Result<Arc<ClientConfig>> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = given.get(pem) {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.context("tls.ca")?).context("tls.ca")?;
        }
        let config = config(roots)?;
        if given.len() >= KEPT {
            given.clear();
        }
        given.insert(pem.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    async fn of_the_public(&self) -> Result<Arc<ClientConfig>> {
        // One at a time: the pool of blocking threads serves changes of policies, too.
        let load = || async {
            let certificates = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.await?.certs);
            config(roots)
        };
        self.public.get_or_try_init(load).await.map(Arc::clone)
    }
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    if roots.is_empty() {
        bail!("there are no certificates of authorities");
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
