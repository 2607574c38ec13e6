//! `egressProxy`: connects through a SOCKS5 proxy. If anything fails, the connection fails. Nothing
//! goes around the proxy.

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
    context::ProxyContext,
    decision::ConnectionEnd,
    dial::{DialTarget, candidate_addresses, connect_first},
    lookup_limiter::LookupLimiter,
    socket::SharedTcpStream,
    upstream::{UpstreamConnection, UpstreamIo},
};
use crate::{
    net::system_roots::load_system_roots,
    policy::{DomainOrIp, Socks5Credentials, Socks5Proxy, Socks5Tls},
};

/// Connects to the target through the SOCKS5 proxy.
pub(super) async fn connect_through(
    context: &ProxyContext,
    lookup_limiter: &LookupLimiter,
    egress_proxy: &Socks5Proxy,
    target: &DialTarget,
) -> Result<UpstreamConnection, ConnectionEnd> {
    let establishing = establish(context, lookup_limiter, egress_proxy, target);
    let established = timeout(context.timeouts.egress_proxy, establishing).await;
    match established.unwrap_or_else(|_| Err(anyhow::anyhow!("it took too long"))) {
        Ok(upstream) => Ok(upstream),
        Err(error) => {
            tracing::debug!("egressProxy {egress_proxy}: {error:#}");
            Err(Reason::EgressProxyFailed.into())
        }
    }
}

async fn establish(
    context: &ProxyContext,
    lookup_limiter: &LookupLimiter,
    egress_proxy: &Socks5Proxy,
    target: &DialTarget,
) -> Result<UpstreamConnection> {
    let platform_policy = context.platform_policy.get();
    let denial = |address| {
        (!Socks5Proxy::may_be_dialed(&platform_policy.floor, address))
            .then(|| Reason::PlatformDeny.into())
    };
    let proxy_target = DialTarget { host: egress_proxy.host.clone(), port: egress_proxy.port };
    let addresses = candidate_addresses(context, lookup_limiter, &proxy_target, denial)
        .await
        .map_err(connection_error)?;
    let stream =
        connect_first(context, &addresses, egress_proxy.port).await.map_err(connection_error)?;
    let UpstreamConnection { socket, .. } = UpstreamConnection::plain(stream);
    let stream = SharedTcpStream(Arc::clone(&socket));
    let credentials = egress_proxy.credentials.as_ref();
    let io = match &egress_proxy.tls {
        None => UpstreamIo::Plain(socks5_handshake(stream, credentials, target).await?),
        Some(tls) => {
            let connector = context.tls_configs.tls_connector(tls).await?;
            let encrypted = connector.connect(tls_server_name(&tls.server_name)?, stream).await?;
            UpstreamIo::Tls(socks5_handshake(Box::new(encrypted), credentials, target).await?)
        }
    };
    Ok(UpstreamConnection { socket, io })
}

fn connection_error(end: ConnectionEnd) -> anyhow::Error {
    match end {
        ConnectionEnd::Closed => anyhow::anyhow!("the connection is closed"),
        ConnectionEnd::Refused(decision) => anyhow::anyhow!("{}", decision.reason.help()),
    }
}

/// The SOCKS5 handshake (RFC 1928, RFC 1929). The proxy receives names unresolved.
async fn socks5_handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    credentials: Option<&Socks5Credentials>,
    target: &DialTarget,
) -> Result<S> {
    let destination = match &target.host {
        DomainOrIp::Domain(name) => TargetAddr::Domain(name.as_str().into(), target.port),
        DomainOrIp::Address(address) => TargetAddr::Ip((*address, target.port).into()),
    };
    let connected = match credentials {
        None => Socks5Stream::connect_with_socket(stream, destination).await,
        Some(Socks5Credentials { username, password }) => {
            let password = password.reveal();
            Socks5Stream::connect_with_password_and_socket(stream, destination, username, password)
                .await
        }
    };
    Ok(connected.context("SOCKS5")?.into_inner())
}

fn tls_server_name(server: &DomainOrIp) -> Result<ServerName<'static>> {
    Ok(match server {
        DomainOrIp::Address(address) => ServerName::IpAddress((*address).into()),
        DomainOrIp::Domain(name) => ServerName::try_from(name.to_string())?,
    })
}

/// TLS configurations by their CA certificates. Loading the system's certificates takes tens of
/// milliseconds.
#[derive(Default)]
pub(super) struct TlsConfigCache {
    system_roots: OnceCell<Arc<ClientConfig>>,
    custom_roots: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

/// Maximum number of cached configurations. Each takes a few KiB.
const MAX_CACHED_CONFIGS: usize = 256;

impl TlsConfigCache {
    async fn tls_connector(&self, tls: &Socks5Tls) -> Result<TlsConnector> {
        let config = match &tls.ca_pem {
            Some(pem) => self.config_for_ca(pem)?,
            None => self.config_for_system_roots().await?,
        };
        Ok(config.into())
    }

    fn config_for_ca(&self, pem: &str) -> Result<Arc<ClientConfig>> {
        let mut custom_roots = self.custom_roots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = custom_roots.get(pem) {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.context("tls.ca")?).context("tls.ca")?;
        }
        let config = build_client_config(roots)?;
        if custom_roots.len() >= MAX_CACHED_CONFIGS {
            custom_roots.clear();
        }
        custom_roots.insert(pem.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    async fn config_for_system_roots(&self) -> Result<Arc<ClientConfig>> {
        // Loads once at a time, because policy updates use the same pool of blocking threads.
        let load = || async { build_client_config(load_system_roots().await?) };
        self.system_roots.get_or_try_init(load).await.map(Arc::clone)
    }
}

fn build_client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    if roots.is_empty() {
        bail!("there are no certificates of authorities");
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
