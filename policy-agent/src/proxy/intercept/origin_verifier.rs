//! Verifies the certificate of a server, and describes one that is not accepted.

use std::{fmt, sync::Arc};

use anyhow::Result;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Maximum length of a name in a description. The server chooses it.
const MAX_NAME_LENGTH: usize = 200;

/// Why the certificate of a server is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateProblem {
    /// The certificate: its subject and its issuer.
    certificate: String,
    /// What is wrong with it.
    problem: String,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not accepted: {}", self.certificate, self.problem)
    }
}

impl std::error::Error for CertificateProblem {}

impl CertificateProblem {
    /// The problem that a failed handshake reports, if it is one.
    pub(super) fn of_handshake(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                other.downcast_ref()
            }
            _ => None,
        }
    }

    fn describe(der: &CertificateDer<'_>, error: &CertificateError) -> Self {
        let Ok((_, parsed)) = X509Certificate::from_der(der) else {
            return Self {
                certificate: "the server's certificate".to_owned(),
                problem: error.to_string(),
            };
        };
        let (subject, issuer) = (shown_name(parsed.subject()), shown_name(parsed.issuer()));
        let validity = parsed.validity();
        let problem = match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("it expired on {}", validity.not_after)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("it is not valid before {}", validity.not_before)
            }
            CertificateError::UnknownIssuer if subject == issuer => {
                "it is self-signed, and not among the roots that the agent trusts".to_owned()
            }
            CertificateError::UnknownIssuer => {
                "no authority that the agent trusts has issued it".to_owned()
            }
            other => other.to_string(),
        };
        let certificate =
            format!("the server's certificate with subject \"{subject}\" and issuer \"{issuer}\"");
        Self { certificate, problem }
    }
}

/// A name from a certificate, without what terminals would interpret.
fn shown_name(name: &impl fmt::Display) -> String {
    name.to_string().chars().filter(|c| !c.is_control()).take(MAX_NAME_LENGTH).collect()
}

/// Accepts the certificates that chain to some roots and are for the name of the connection.
#[derive(Debug)]
pub(super) struct OriginVerifier(Arc<WebPkiServerVerifier>);

impl OriginVerifier {
    /// A verifier with these roots.
    ///
    /// # Errors
    /// There are no roots.
    pub(super) fn new(roots: RootCertStore) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        Ok(Self(WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build()?))
    }
}

impl ServerCertVerifier for OriginVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(invalid) => {
                let problem = Arc::new(CertificateProblem::describe(end_entity, &invalid));
                CertificateError::Other(OtherError(problem)).into()
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn problem(params: CertificateParams, is_root: bool) -> String {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        let other = rcgen::generate_simple_self_signed(["other.example".to_owned()]);
        roots.add(other.expect("made").cert.der().clone()).expect("a root");
        if is_root {
            roots.add(certificate.der().clone()).expect("a root");
        }
        let verifier = OriginVerifier::new(roots).expect("a verifier");
        let name = ServerName::try_from("api.example.com").expect("a name");
        let verified =
            verifier.verify_server_cert(certificate.der(), &[], &name, &[], UnixTime::now());
        let error = verified.expect_err("not accepted");
        CertificateProblem::of_handshake(&error).expect("a problem").to_string()
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    #[test]
    fn a_problem_names_the_certificate_and_says_what_is_wrong() {
        let self_signed = problem(params("api.example.com"), false);
        assert!(self_signed.contains("it is self-signed"), "{self_signed}");
        assert!(self_signed.contains("subject \"CN=api.example.com\""), "{self_signed}");
        let mut expired = params("api.example.com");
        (expired.not_before, expired.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        let expired = problem(expired, true);
        assert!(expired.contains("it expired on Jan  1 00:00:00 2021"), "{expired}");
        let other_name = problem(params("evil.example"), true);
        assert!(other_name.contains("api.example.com"), "{other_name}");
    }

    #[test]
    fn names_cannot_control_a_terminal() {
        assert_eq!(shown_name(&"CN=a\u{1b}[31m\r\nb"), "CN=a[31mb");
        assert_eq!(shown_name(&"x".repeat(1000)).len(), MAX_NAME_LENGTH);
    }
}
