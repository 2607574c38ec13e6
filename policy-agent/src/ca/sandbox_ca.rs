//! The authority of one sandbox: ECDSA P-256, for certificates of servers only.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SerialNumber,
};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SigningKey},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::policy::{DomainName, SandboxId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How far back certificates are valid. The clock of a sandbox that was paused may be behind.
const BACKDATED_BY: Duration = DAY.saturating_mul(30);
/// How long an authority is valid. It has to outlast the sandbox, which cannot replace it unnoticed.
const CA_VALIDITY: Duration = DAY.saturating_mul(10 * 365);
/// How long a server's certificate is valid.
const LEAF_VALIDITY: Duration = DAY.saturating_mul(30);
/// Number of random bytes in a serial number. RFC 5280, 4.1.2.2 allows 20.
const SERIAL_BYTES: usize = 16;
/// Maximum length of a common name (RFC 5280, A.1).
const MAX_COMMON_NAME: usize = 64;
/// Marks the certificate in the file of an authority.
const CERTIFICATE_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// An authority, and the key of all certificates that it issues. That key exists in memory only.
pub struct SandboxCa {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    leaf_key: KeyPair,
    leaf_signing_key: Arc<dyn SigningKey>,
}

impl SandboxCa {
    /// Makes an authority.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn generate(sandbox: &SandboxId) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
        let certificate = ca_params(sandbox)?.self_signed(&key).context("making a certificate")?;
        Self::with_key(sandbox, key, certificate.pem())
    }

    /// Reads an authority from [`Self::to_text`].
    ///
    /// # Errors
    /// The text is damaged.
    pub(super) fn from_text(sandbox: &SandboxId, text: &str) -> Result<Self> {
        let start = text.find(CERTIFICATE_BEGIN).context("there is no certificate")?;
        let (key_pem, certificate_pem) = text.split_at(start);
        let key = KeyPair::from_pem(key_pem).context("there is no private key")?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())?;
        let (_, certificate) = X509Certificate::from_der(&der).context("the certificate")?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            bail!("key and certificate do not belong together");
        }
        Self::with_key(sandbox, key, certificate_pem.to_owned())
    }

    fn with_key(sandbox: &SandboxId, key: KeyPair, certificate_pem: String) -> Result<Self> {
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
        let leaf_der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let leaf_signing_key = any_ecdsa_type(&leaf_der).context("the key of certificates")?;
        // Subject and key are all that an issuer needs, and both are those of the certificate.
        let issuer = Issuer::new(ca_params(sandbox)?, key);
        Ok(Self { issuer, certificate_pem, leaf_key, leaf_signing_key })
    }

    /// The private key and the certificate (PEM).
    pub(super) fn to_text(&self) -> String {
        self.issuer.key().serialize_pem() + &self.certificate_pem
    }

    /// The certificate (PEM).
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate for a server.
    ///
    /// # Errors
    /// The name cannot be in a certificate, or the system has no random bytes.
    pub fn issue(&self, name: &DomainName) -> Result<Arc<CertifiedKey>> {
        let mut params = CertificateParams::new([name.as_str().to_owned()].to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        if name.as_str().len() <= MAX_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        let mut serial = [0; SERIAL_BYTES];
        getrandom::fill(&mut serial).context("there are no random bytes")?;
        serial[0] = serial[0] & 0x7f | 0x40; // positive, and of full length
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED_BY).into();
        params.not_after = (now + LEAF_VALIDITY).into();
        let certificate = params.signed_by(&self.leaf_key, &self.issuer)?;
        let chain = vec![certificate.der().clone()];
        Ok(Arc::new(CertifiedKey::new(chain, Arc::clone(&self.leaf_signing_key))))
    }
}

fn ca_params(sandbox: &SandboxId) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::default())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "policy-agent: network.rules");
    params.distinguished_name.push(DnType::CommonName, sandbox.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED_BY).into();
    params.not_after = (now + CA_VALIDITY).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use rustls::{RootCertStore, client::WebPkiServerVerifier, crypto::ring, pki_types::UnixTime};

    use super::*;

    fn id() -> SandboxId {
        "web".parse().expect("an ID")
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect("a name")
    }

    /// Whether a client that trusts `ca` accepts a certificate for `name`.
    fn is_trusted(ca: &SandboxCa, leaf: &CertifiedKey, name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes());
        roots.add(root.expect("a certificate")).expect("a root");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().expect("a verifier");
        let name = name.try_into().expect("a name");
        let now = UnixTime::now();
        use rustls::client::danger::ServerCertVerifier as _;
        verifier.verify_server_cert(&leaf.cert[0], &[], &name, &[], now).is_ok()
    }

    #[test]
    fn clients_trust_its_certificates_and_no_others() {
        let (own, other) = (SandboxCa::generate(&id()), SandboxCa::generate(&id()));
        let (own, other) = (own.expect("made"), other.expect("made"));
        let leaf = own.issue(&name("api.example.com")).expect("issued");
        assert!(is_trusted(&own, &leaf, "api.example.com"));
        assert!(!is_trusted(&own, &leaf, "other.example.com"));
        assert!(!is_trusted(&other, &leaf, "api.example.com"));
    }

    #[test]
    fn a_text_is_the_same_authority_again() {
        let made = SandboxCa::generate(&id()).expect("made");
        let read = SandboxCa::from_text(&id(), &made.to_text()).expect("read");
        assert_eq!(read.certificate_pem(), made.certificate_pem());
        let leaf = read.issue(&name("a_b.example")).expect("issued");
        assert!(is_trusted(&made, &leaf, "a_b.example"));
    }

    #[test]
    fn a_damaged_text_is_no_authority() {
        let (one, other) = (SandboxCa::generate(&id()), SandboxCa::generate(&id()));
        let (one, other) = (one.expect("made"), other.expect("made"));
        let mixed = one.issuer.key().serialize_pem() + other.certificate_pem();
        for text in ["", &one.to_text()[..100], one.certificate_pem(), &mixed] {
            assert!(SandboxCa::from_text(&id(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn serial_numbers_differ() {
        let ca = SandboxCa::generate(&id()).expect("made");
        let serial = || {
            let leaf = ca.issue(&name("api.example.com")).expect("issued");
            let (_, leaf) = X509Certificate::from_der(&leaf.cert[0]).expect("a certificate");
            leaf.raw_serial().to_vec()
        };
        assert_ne!(serial(), serial());
    }

    #[test]
    fn long_names_have_certificates_too() {
        let ca = SandboxCa::generate(&id()).expect("made");
        let long = format!("{}.example", vec!["a".repeat(40); 5].join("."));
        let leaf = ca.issue(&name(&long)).expect("issued");
        assert!(is_trusted(&ca, &leaf, &long));
    }
}
