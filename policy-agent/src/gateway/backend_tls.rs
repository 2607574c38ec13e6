//! TLS towards services on `httpsPorts`.

use std::sync::Arc;

use anyhow::Result;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// The TLS configurations for services on `httpsPorts`.
#[derive(Clone, Debug)]
pub(super) struct BackendTls {
    /// Offers HTTP/1.1.
    pub http1: Arc<ClientConfig>,
    /// Offers HTTP/2 as well, and prefers it.
    pub http2: Arc<ClientConfig>,
}

/// The TLS configurations for services on `httpsPorts`. Certificates are not verified: only the
/// sandbox itself can receive connections to its address.
///
/// # Errors
/// The cryptography cannot be set up.
pub(super) fn unverified_tls_config() -> Result<BackendTls> {
    let provider = Arc::new(ring::default_provider());
    let any = Arc::new(AcceptAnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    let mut tls = builder.with_custom_certificate_verifier(any).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let http1 = Arc::new(tls.clone());
    tls.alpn_protocols.insert(0, b"h2".to_vec());
    Ok(BackendTls { http1, http2: Arc::new(tls) })
}

#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
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
