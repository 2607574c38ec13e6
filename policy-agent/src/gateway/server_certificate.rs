//! A certificate and its key: the operator's, or a self-signed one for evaluation.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use crate::private_file::replace_private_file;

/// Paths of the certificate chain and the private key, in PEM format.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// A self-signed certificate for `domain` and `*.domain`, created in `directory` if it does not
    /// exist. Clients must be configured to trust it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn self_signed(directory: &Path, domain: &str) -> Result<Self> {
        let files = Self {
            cert: directory.join(format!("{domain}.crt")),
            key: directory.join(format!("{domain}.key")),
        };
        if load_certified_key(&files).is_ok() {
            return Ok(files);
        }
        let names = [domain.to_owned(), format!("*.{domain}")];
        let generated =
            rcgen::generate_simple_self_signed(names).context("making a certificate")?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        write_file(&files.key, &generated.signing_key.serialize_pem())?;
        write_file(&files.cert, &generated.cert.pem())?;
        Ok(files)
    }

    /// Modification times of both files.
    pub(super) fn modified_at(&self) -> Option<[SystemTime; 2]> {
        let modified = |path| fs::metadata(path).and_then(|file| file.modified()).ok();
        Some([modified(&self.cert)?, modified(&self.key)?])
    }
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    let written = replace_private_file(path, text.as_bytes());
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a pair of files.
///
/// # Errors
/// The files cannot be read, or do not match each other.
pub(super) fn load_certified_key(files: &CertificateFiles) -> Result<Arc<CertifiedKey>> {
    let (cert, key) = (files.cert.display(), files.key.display());
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("gateway.tls_cert: cannot read certificates from {cert}"))?;
    if chain.is_empty() {
        bail!("gateway.tls_cert: {cert} holds no certificate");
    }
    let private = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("gateway.tls_key: cannot read a private key from {key}"))?;
    let certified = CertifiedKey::from_der(chain, private, &ring::default_provider());
    let certified = certified.with_context(|| {
        format!("gateway.tls_cert, gateway.tls_key: {cert} and {key} do not belong together")
    })?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = CertificateFiles::self_signed(directory.path(), "example.com").expect("made");
        let first = fs::read(&files.cert).expect("the certificate");
        CertificateFiles::self_signed(directory.path(), "example.com").expect("found");
        assert_eq!(fs::read(&files.cert).expect("the certificate"), first);
        assert!(load_certified_key(&files).is_ok());
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let one = CertificateFiles::self_signed(directory.path(), "one.example").expect("made");
        let other = CertificateFiles::self_signed(directory.path(), "other.example").expect("made");
        let mixed = CertificateFiles { cert: one.cert, key: other.key };
        let error = load_certified_key(&mixed).expect_err("mixed").to_string();
        assert!(error.contains("do not belong together"), "{error}");
    }
}
