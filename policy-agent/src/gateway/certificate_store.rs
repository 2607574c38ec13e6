//! The gateway's certificates, chosen by the name that a client asks for (SNI, RFC 6066, 3), and
//! reloaded when their files change.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use webpki::EndEntityCert;

use super::server_certificate::{CertificateFiles, load_certified_key};

/// How often the files are checked for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// The extension of certificate chains in the directory. The key has [`KEY_EXTENSION`].
const CERT_EXTENSION: &str = "crt";
const KEY_EXTENSION: &str = "key";

/// Where the certificates are.
#[derive(Clone, Debug, Default)]
pub struct CertificateSources {
    /// Pairs of files. The first one is for clients that ask for a name that no certificate has.
    pub files: Vec<CertificateFiles>,
    /// A directory of pairs, `NAME.crt` and `NAME.key`.
    pub directory: Option<PathBuf>,
}

impl CertificateSources {
    /// All pairs of files: those of the directory follow by name.
    fn pairs(&self) -> Result<Vec<CertificateFiles>> {
        let mut pairs = self.files.clone();
        if let Some(directory) = &self.directory {
            pairs.extend(pairs_in(directory)?);
        }
        Ok(pairs)
    }
}

fn pairs_in(directory: &Path) -> Result<Vec<CertificateFiles>> {
    let reading = || format!("gateway.tls_directory: cannot read {}", directory.display());
    let mut pairs = Vec::new();
    for entry in fs::read_dir(directory).with_context(reading)? {
        let cert = entry.with_context(reading)?.path();
        let key = cert.with_extension(KEY_EXTENSION);
        if cert.extension().is_some_and(|extension| extension == CERT_EXTENSION) && key.exists() {
            pairs.push(CertificateFiles { cert, key });
        }
    }
    pairs.sort_by(|a, b| a.cert.cmp(&b.cert));
    Ok(pairs)
}

/// A pair of files as it was read last.
#[derive(Clone, Debug)]
struct LoadedPair {
    modified_at: Option<[SystemTime; 2]>,
    /// `None` if it has never been valid.
    key: Option<Arc<CertifiedKey>>,
}

/// The certificates in use.
#[derive(Debug, Default)]
struct ActiveCertificates {
    /// By name in lower case, or `*.` and a parent domain.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl ActiveCertificates {
    /// Of several certificates for a name, the first one counts.
    fn new<'a>(keys: impl Iterator<Item = &'a Arc<CertifiedKey>>) -> Self {
        let mut active = Self::default();
        for key in keys {
            active.default.get_or_insert_with(|| Arc::clone(key));
            for name in names_of(key) {
                active.by_name.entry(name).or_insert_with(|| Arc::clone(key));
            }
        }
        active
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
        let found = self.by_name.get(&name);
        found.or_else(|| self.by_name.get(&wildcard()?))
    }
}

fn names_of(key: &CertifiedKey) -> Vec<String> {
    let parsed = key.cert.first().and_then(|cert| EndEntityCert::try_from(cert).ok());
    let names = parsed.iter().flat_map(|cert| cert.valid_dns_names());
    names.map(str::to_ascii_lowercase).collect()
}

/// The certificates and their files.
#[derive(Debug)]
pub(super) struct CertificateStore {
    sources: CertificateSources,
    active: RwLock<Arc<ActiveCertificates>>,
}

/// The pairs by the path of the certificate, in the order of [`CertificateSources::pairs`].
type LoadedPairs = BTreeMap<(usize, PathBuf), LoadedPair>;

impl CertificateStore {
    /// Reads all files. Invalid pairs in the directory are skipped with a warning.
    ///
    /// # Errors
    /// A pair outside the directory is invalid, or there is no certificate at all.
    pub(super) fn load(sources: CertificateSources) -> Result<(Arc<Self>, CertificateReloader)> {
        for files in &sources.files {
            load_certified_key(files)?;
        }
        let loaded = reload(&sources, &LoadedPairs::new())?;
        let active = RwLock::new(Arc::new(active_of(&loaded)));
        let store = Arc::new(Self { sources, active });
        if store.active().default.is_none() {
            bail!(
                "gateway.tls_directory: holds no certificate; put NAME.crt and NAME.key there, or \
                 set gateway.tls_cert and gateway.tls_key"
            );
        }
        Ok((Arc::clone(&store), CertificateReloader { store, loaded }))
    }

    /// The gateway's TLS configuration, with these certificates.
    ///
    /// # Errors
    /// The cryptography cannot be set up.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let mut tls = builder.with_no_client_auth().with_cert_resolver(resolver);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(tls)
    }

    fn active(&self) -> Arc<ActiveCertificates> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let active = self.active();
        let found = hello.server_name().and_then(|name| active.find(name));
        found.or(active.default.as_ref()).cloned()
    }
}

/// Follows the files of a store.
#[derive(Debug)]
pub(super) struct CertificateReloader {
    store: Arc<CertificateStore>,
    loaded: LoadedPairs,
}

impl CertificateReloader {
    /// Reloads the files whenever they change, without end. As long as a pair cannot be read, its
    /// current certificate stays in use.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
        loop {
            ticks.tick().await;
            self.reload_changed();
        }
    }

    fn reload_changed(&mut self) {
        let loaded = match reload(&self.store.sources, &self.loaded) {
            Ok(loaded) => loaded,
            Err(error) => return tracing::warn!("the old certificates stay: {error:#}"),
        };
        let is_same = loaded.len() == self.loaded.len()
            && loaded.iter().zip(&self.loaded).all(|((path, pair), (old_path, old))| {
                path == old_path && pair.modified_at == old.modified_at
            });
        self.loaded = loaded;
        if !is_same {
            let active = Arc::new(active_of(&self.loaded));
            *self.store.active.write().unwrap_or_else(PoisonError::into_inner) = active;
        }
    }
}

fn active_of(loaded: &LoadedPairs) -> ActiveCertificates {
    ActiveCertificates::new(loaded.values().filter_map(|pair| pair.key.as_ref()))
}

/// Reads the pairs that have changed, and keeps the others.
fn reload(sources: &CertificateSources, loaded: &LoadedPairs) -> Result<LoadedPairs> {
    let mut pairs = LoadedPairs::new();
    for (position, files) in sources.pairs()?.into_iter().enumerate() {
        let position = position.min(sources.files.len());
        let place = (position, files.cert.clone());
        let old = loaded.get(&place);
        pairs.insert(place, reload_pair(&files, old));
    }
    Ok(pairs)
}

fn reload_pair(files: &CertificateFiles, old: Option<&LoadedPair>) -> LoadedPair {
    let modified_at = files.modified_at();
    if let Some(old) = old
        && (old.modified_at == modified_at || modified_at.is_none())
    {
        return old.clone();
    }
    let cert = files.cert.display();
    match load_certified_key(files) {
        Ok(key) => {
            if old.is_some() {
                tracing::info!(%cert, "certificate read anew");
            }
            LoadedPair { modified_at, key: Some(key) }
        }
        // Certificate and key are separate files. Between their two updates they do not match.
        Err(error) => {
            let key = old.and_then(|old| old.key.clone());
            match &key {
                Some(_) => tracing::warn!("the old certificate stays: {error:#}"),
                None => tracing::warn!("a certificate is left out: {error:#}"),
            }
            LoadedPair { modified_at, key }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str) {
        CertificateFiles::self_signed(directory, name).expect("made");
    }

    /// The names of the certificate that a client gets.
    fn served(store: &CertificateStore, name: &str) -> Vec<String> {
        let active = store.active();
        let found = active.find(name).or(active.default.as_ref());
        found.map(|key| names_of(key)).unwrap_or_default()
    }

    #[test]
    fn the_name_selects_the_certificate() {
        let (fixed, directory) =
            (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let files = vec![CertificateFiles::self_signed(fixed.path(), "one.example").expect("made")];
        write(directory.path(), "two.example");
        let sources = CertificateSources { files, directory: Some(directory.path().to_path_buf()) };
        let (store, mut reloader) = CertificateStore::load(sources).expect("loaded");
        for (name, expected) in [
            ("3000-a.one.example", "one.example"),
            ("3000-a.two.example", "two.example"),
            ("TWO.example", "two.example"),
            ("a.b.two.example", "one.example"),
            ("three.example", "one.example"),
        ] {
            assert_eq!(served(&store, name)[0], expected, "{name}");
        }
        write(directory.path(), "three.example");
        fs::write(directory.path().join("four.crt"), "no certificate").expect("written");
        fs::write(directory.path().join("four.key"), "no key").expect("written");
        fs::remove_file(directory.path().join("two.example.crt")).expect("removed");
        reloader.reload_changed();
        assert_eq!(served(&store, "3000-a.three.example")[0], "three.example");
        assert_eq!(served(&store, "3000-a.two.example")[0], "one.example");
    }

    #[test]
    fn an_invalid_pair_leaves_the_others_in_use() {
        let directory = tempfile::tempdir().expect("made");
        let sources = CertificateSources {
            directory: Some(directory.path().to_path_buf()),
            ..CertificateSources::default()
        };
        let error = CertificateStore::load(sources.clone()).expect_err("empty").to_string();
        assert!(error.starts_with("gateway.tls_directory: holds no certificate"), "{error}");
        fs::write(directory.path().join("a.crt"), "no certificate").expect("written");
        fs::write(directory.path().join("a.key"), "no key").expect("written");
        write(directory.path(), "b.example");
        let (store, _) = CertificateStore::load(sources).expect("loaded");
        assert_eq!(served(&store, "a.example")[0], "b.example");
    }
}
