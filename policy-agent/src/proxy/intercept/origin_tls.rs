//! TLS towards the servers of names with a rule. Their certificates are verified against the system's
//! roots and those of the operator.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{sync::OnceCell, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    alpn::AlpnOffer,
    origin_failure::OriginFailure,
    origin_verifier::{CertificateProblem, OriginVerifier},
};
use crate::{
    net::system_roots::load_system_roots,
    policy::DomainName,
    proxy::{context::ProxyContext, upstream::UpstreamIo},
};

/// The roots in force, which a reload of the configuration replaces. Open connections stay.
pub(in crate::proxy) struct CurrentOriginRoots(RwLock<Arc<OriginRoots>>);

impl CurrentOriginRoots {
    pub(super) fn new(roots: OriginRoots) -> Self {
        Self(RwLock::new(Arc::new(roots)))
    }

    pub(in crate::proxy) fn replace(&self, roots: OriginRoots) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roots);
    }

    fn current(&self) -> Arc<OriginRoots> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The roots that servers of names with rules are verified against.
pub struct OriginRoots {
    extra_roots: Vec<CertificateDer<'static>>,
    /// By the index of the offer in [`AlpnOffer::ALL`].
    configs: OnceCell<[Arc<ClientConfig>; AlpnOffer::ALL.len()]>,
}

impl OriginRoots {
    /// Reads the operator's roots. The system's are loaded when they are needed.
    ///
    /// # Errors
    /// The file cannot be read, or contains no certificates.
    pub(crate) fn read(extra_roots: Option<&Path>) -> Result<Self> {
        let extra_roots = extra_roots.map(read_roots).transpose()?.unwrap_or_default();
        Ok(Self { extra_roots, configs: OnceCell::new() })
    }

    async fn config_for(&self, offer: AlpnOffer) -> Result<Arc<ClientConfig>> {
        let configs = self.configs.get_or_try_init(|| self.build_configs()).await?;
        let index = AlpnOffer::ALL.iter().position(|it| *it == offer).unwrap_or_default();
        Ok(Arc::clone(&configs[index]))
    }

    async fn build_configs(&self) -> Result<[Arc<ClientConfig>; AlpnOffer::ALL.len()]> {
        let mut roots = load_system_roots().await?;
        roots.add_parsable_certificates(self.extra_roots.iter().cloned());
        if roots.is_empty() {
            bail!("the system has no certificates of authorities");
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions()?;
        let verifier = Arc::new(OriginVerifier::new(roots)?);
        // Not dangerous: it accepts what the library's own verifier accepts.
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = builder.with_no_client_auth();
        // Sessions would be shared by all sandboxes.
        config.resumption = Resumption::disabled();
        Ok(AlpnOffer::ALL.map(|offer| {
            let mut config = config.clone();
            config.alpn_protocols = offer.protocols();
            Arc::new(config)
        }))
    }
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("rules.extra_roots: cannot read {}", path.display()))?;
    if certificates.is_empty() {
        bail!("rules.extra_roots: {} holds no certificate", path.display());
    }
    Ok(certificates)
}

/// Connects to the server of a name inside a TCP connection.
///
/// # Errors
/// The server does not complete the handshake, or its certificate is not accepted.
pub(super) async fn connect_tls(
    context: &ProxyContext,
    name: &DomainName,
    offer: AlpnOffer,
    io: UpstreamIo,
) -> Result<TlsStream<UpstreamIo>, OriginFailure> {
    let config = context.interception.origin_roots.current().config_for(offer).await;
    let config = config.map_err(|error| OriginFailure::not_verified(format!("{error:#}")))?;
    let server_name = ServerName::try_from(name.as_str().to_owned());
    let server_name = server_name.map_err(|error| OriginFailure::broke_off(&error))?;
    let connecting = TlsConnector::from(config).connect(server_name, io);
    match timeout(context.timeouts.connect, connecting).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(super::TLS_UNSENT_LIMIT));
            Ok(stream)
        }
        Ok(Err(error)) => Err(handshake_failure(&error)),
        Err(_) => Err(OriginFailure::broke_off(&"its TLS handshake took too long")),
    }
}

fn handshake_failure(error: &std::io::Error) -> OriginFailure {
    let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls_error.and_then(CertificateProblem::of_handshake) {
        Some(problem) => OriginFailure::not_verified(problem.to_string()),
        None => OriginFailure::broke_off(&format!("its TLS handshake failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error_that_names_the_key() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = |path: &Path| {
            let error = OriginRoots::read(Some(path)).err().expect("an error");
            format!("{error:#}")
        };
        assert!(error(file.path()).starts_with("rules.extra_roots: "));
        assert!(error(Path::new("/nowhere")).starts_with("rules.extra_roots: cannot read"));
    }
}
