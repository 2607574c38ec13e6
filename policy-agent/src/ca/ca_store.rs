//! The authorities on disk: a file for each sandbox that has one, with its key and its certificate.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};

use super::SandboxCa;
use crate::{
    policy::SandboxId,
    private_file::{remove_if_exists, replace_private_file},
};

const EXTENSION: &str = "pem";

/// The directory of the authorities. The owner alone may read its files.
#[derive(Debug)]
pub struct SandboxCaStore {
    directory: PathBuf,
    /// Held while an authority is made, so that a sandbox gets one only.
    making: Mutex<()>,
}

impl SandboxCaStore {
    /// A store in `state_dir`. Nothing is created until an authority is.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("authorities"), making: Mutex::new(()) }
    }

    /// The authority of a sandbox, made if there is none, or if its file is damaged.
    ///
    /// # Errors
    /// The disk reports an error.
    pub(crate) fn load_or_make(&self, sandbox: &SandboxId) -> Result<SandboxCa> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.file_path(sandbox);
        match fs::read_to_string(&path) {
            Ok(text) => match SandboxCa::from_text(sandbox, &text) {
                Ok(ca) => return Ok(ca),
                Err(error) => {
                    tracing::warn!(%sandbox, "the CA in {} is damaged, so the sandbox gets another \
                                   one, which it has to trust anew: {error:#}", path.display());
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
        let ca = SandboxCa::generate(sandbox)?;
        let saved = self.save(&path, &ca.to_text());
        saved.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(ca)
    }

    fn save(&self, path: &Path, text: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        replace_private_file(path, text.as_bytes())
    }

    /// Removes the authority of a sandbox, if it has one.
    ///
    /// # Errors
    /// The disk reports an error.
    pub(crate) fn remove(&self, sandbox: &SandboxId) -> io::Result<()> {
        remove_if_exists(&self.file_path(sandbox)).map(|_| ())
    }

    /// Removes the authorities of all sandboxes except these.
    ///
    /// # Errors
    /// The disk reports an error.
    pub(crate) fn retain(&self, known: &BTreeSet<&str>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let is_kept = known.contains(id) && path.extension().is_some_and(|it| it == EXTENSION);
            if !is_kept {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes all authorities.
    ///
    /// # Errors
    /// The disk reports an error.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file_path(&self, sandbox: &SandboxId) -> PathBuf {
        self.directory.join(format!("{sandbox}.{EXTENSION}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn id(text: &str) -> SandboxId {
        text.parse().expect("an ID")
    }

    #[test]
    fn an_authority_is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = SandboxCaStore::new(directory.path()).load_or_make(&id("web")).expect("made");
        let read = SandboxCaStore::new(directory.path()).load_or_make(&id("web")).expect("read");
        assert_eq!(made.certificate_pem(), read.certificate_pem());
        let mode = |path: &str| {
            fs::metadata(directory.path().join(path)).expect(path).permissions().mode() & 0o777
        };
        assert_eq!(mode("authorities"), 0o700);
        assert_eq!(mode("authorities/web.pem"), 0o600);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SandboxCaStore::new(directory.path());
        let made = store.load_or_make(&id("web")).expect("made");
        let path = store.file_path(&id("web"));
        fs::write(&path, "nonsense").expect("written");
        let other = store.load_or_make(&id("web")).expect("made again");
        assert_ne!(made.certificate_pem(), other.certificate_pem());
        assert_eq!(fs::read_to_string(&path).expect("read"), other.to_text());
    }

    #[test]
    fn an_authority_goes_with_its_sandbox() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SandboxCaStore::new(directory.path());
        assert!(store.remove(&id("none")).is_ok());
        let made = store.load_or_make(&id("web")).expect("made");
        store.remove(&id("web")).expect("removed");
        let other = store.load_or_make(&id("web")).expect("made again");
        assert_ne!(made.certificate_pem(), other.certificate_pem());
        store.load_or_make(&id("other")).expect("made");
        fs::write(directory.path().join("authorities/left.new"), "").expect("written");
        store.retain(&BTreeSet::from(["other", "left"])).expect("cleaned");
        let left = fs::read_dir(directory.path().join("authorities")).expect("read");
        let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["other.pem"]);
    }
}
