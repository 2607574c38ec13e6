//! Issues certificates for any name, from an authority that the tests trust. The attacker has such
//! certificates too: no test relies on a client that rejects them.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// What a server presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCertificate {
    /// A certificate of the authority.
    Valid,
    /// One of the authority that has expired.
    Expired,
    /// One of its own.
    SelfSigned,
}

/// The authority and its issued certificates.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// The key of all servers.
    server_key: KeyPair,
    issued: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl CertificateAuthority {
    /// Creates an authority.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::default())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An authority of the tests");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            server_key: KeyPair::generate()?,
            issued: Mutex::default(),
        })
    }

    /// The authority's certificate (PEM).
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns certificate and key (PEM) for a name or an address.
    pub fn issue(&self, name: &str) -> Result<(String, String)> {
        let params = CertificateParams::new(vec![name.to_owned()])?;
        let certificate = params.signed_by(&self.server_key, &self.issuer)?;
        Ok((certificate.pem(), self.server_key.serialize_pem()))
    }

    /// The TLS configuration of a client that trusts this authority.
    pub fn client_config(&self) -> Result<ClientConfig> {
        client_config_for(&self.pem)
    }

    /// The TLS configuration of a server at an address. The server presents a certificate for any
    /// requested name.
    pub fn server_config(self: &Arc<Self>, address: IpAddr) -> Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let answering = AnyNameCertResolver { authority: Arc::clone(self), address };
        Ok(builder.with_cert_resolver(Arc::new(answering)))
    }

    /// The TLS configuration of a server that presents one certificate, whatever the name.
    pub fn server_config_with(
        &self,
        certificate: ServerCertificate,
        name: &str,
    ) -> Result<ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = match certificate {
            ServerCertificate::Valid => params.signed_by(&self.server_key, &self.issuer)?,
            ServerCertificate::SelfSigned => params.self_signed(&self.server_key)?,
            ServerCertificate::Expired => {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(2021, 1, 1);
                params.signed_by(&self.server_key, &self.issuer)?
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.server_key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        Ok(builder.with_single_cert(vec![certificate.der().clone()], key)?)
    }

    fn certified_key(&self, name: &str) -> Result<Arc<CertifiedKey>> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = issued.get(name) {
            return Ok(Arc::clone(known));
        }
        let (certificate, _) = self.issue(name)?;
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.server_key.serialize_der()));
        let key = ring::sign::any_supported_type(&key).context("the servers' key")?;
        let certified = Arc::new(CertifiedKey::new(chain, key));
        issued.insert(name.to_owned(), Arc::clone(&certified));
        Ok(certified)
    }
}

/// The TLS configuration of a client that trusts one authority (PEM) and no other.
pub fn client_config_for(authority: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

struct AnyNameCertResolver {
    authority: Arc<CertificateAuthority>,
    address: IpAddr,
}

impl ResolvesServerCert for AnyNameCertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.address.to_string();
        self.authority.certified_key(hello.server_name().unwrap_or(&own)).ok()
    }
}

impl fmt::Debug for AnyNameCertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificates at {}", self.address)
    }
}
