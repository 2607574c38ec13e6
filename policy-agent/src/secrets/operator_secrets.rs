//! Secrets of the operator: `[secrets] file`, and the files of `[secrets] directory`, as Kubernetes
//! and systemd's credentials mount them.
//!
//! A source that cannot be read keeps the values that it had. Problems name files and secrets, never
//! values.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    MAX_SECRETS, MAX_TOTAL_LEN, MAX_VALUE_LEN, SecretInfo, SecretMetadata, SecretName,
    SecretSource, SecretValue, file_signature::FileSignature, stored_secret::StoredSecret,
};
use crate::{hex::HexDisplay, policy::SECRET_ID_PREFIX};

/// Bytes of the digest of a name that its ID holds.
const ID_BYTES: usize = 10;

/// Where the operator's secrets are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSources {
    /// `[secrets] file`: TOML, one `name = "value"` a line.
    pub file: Option<PathBuf>,
    /// `[secrets] directory`: one file for each secret, with the secret's name.
    pub directory: Option<PathBuf>,
}

/// The operator's secrets as they were last read.
#[derive(Default)]
pub(crate) struct OperatorSecrets {
    secrets: BTreeMap<SecretName, StoredSecret>,
    /// What could not be read, and why.
    problems: Vec<String>,
    signatures: Option<Vec<FileSignature>>,
}

impl SecretSources {
    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.file.is_none() && self.directory.is_none()
    }

    /// The files with secrets.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let entries = self.directory.as_deref().map(|path| secret_files(path).unwrap_or_default());
        self.file.iter().cloned().chain(entries.unwrap_or_default()).collect()
    }

    /// The state of all files, without reading them.
    fn signatures(&self) -> Vec<FileSignature> {
        let paths = self.directory.iter().cloned().chain(self.files());
        paths.map(FileSignature::of).collect()
    }
}

impl OperatorSecrets {
    /// Reads the sources if they have changed since `self`, or in any case. `None` if not.
    pub(crate) fn refreshed(&self, sources: &SecretSources, in_any_case: bool) -> Option<Self> {
        // Before the files are read, so that a change meanwhile is seen the next time.
        let signatures = sources.signatures();
        if !in_any_case && self.signatures.as_ref() == Some(&signatures) {
            return None;
        }
        let mut next = Self { signatures: Some(signatures), ..Self::default() };
        if let Some(directory) = &sources.directory {
            next.read_directory(directory, self);
        }
        // Last, because it precedes the directory.
        if let Some(file) = &sources.file {
            next.read_file(file, self);
        }
        next.drop_excess();
        Some(next)
    }

    /// What could not be read, and why.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The number of secrets.
    pub(crate) fn len(&self) -> usize {
        self.secrets.len()
    }

    pub(super) const fn secrets(&self) -> &BTreeMap<SecretName, StoredSecret> {
        &self.secrets
    }

    fn read_file(&mut self, path: &Path, before: &Self) {
        match read_table(path) {
            Ok(values) => {
                let modified = modified_at(path);
                for (name, value) in values {
                    self.insert(name, value, SecretSource::File, modified, before);
                }
            }
            Err(error) => {
                self.problems.push(format!("{error:#}"));
                self.keep(before, |secret| secret.info.source == SecretSource::File);
            }
        }
    }

    fn read_directory(&mut self, directory: &Path, before: &Self) {
        match secret_files(directory) {
            Ok(files) => files.iter().for_each(|path| self.read_directory_entry(path, before)),
            Err(error) => {
                self.problems.push(format!("{error:#}"));
                self.keep(before, |secret| secret.info.source == SecretSource::Directory);
            }
        }
    }

    fn read_directory_entry(&mut self, path: &Path, before: &Self) {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = match SecretName::parse(&file_name) {
            Ok(name) => name,
            Err(problem) => return self.problems.push(format!("{}: {problem}", path.display())),
        };
        let source = SecretSource::Directory;
        match read_value(path) {
            Ok(value) => self.insert(name, value, source, modified_at(path), before),
            Err(error) => {
                self.problems.push(format!("{error:#}"));
                self.keep(before, |known| known.info.source == source && known.info.name == name);
            }
        }
    }

    fn keep(&mut self, before: &Self, is_kept: impl Fn(&StoredSecret) -> bool) {
        let kept = before.secrets.values().filter(|secret| is_kept(secret));
        self.secrets.extend(kept.map(|secret| (secret.info.name.clone(), secret.clone())));
    }

    fn insert(
        &mut self,
        name: SecretName,
        value: SecretValue,
        source: SecretSource,
        modified: Timestamp,
        before: &Self,
    ) {
        let known = before.secrets.get(&name);
        let is_same = known.is_some_and(|known| known.value.reveal() == value.reveal());
        let version = known.map_or(1, |known| known.info.version + u64::from(!is_same));
        let info = SecretInfo {
            id: id_of(&name),
            name: name.clone(),
            version,
            metadata: SecretMetadata::new(),
            created_at: known.map_or(modified, |known| known.info.created_at),
            updated_at: modified,
            source,
        };
        self.secrets.insert(name, StoredSecret { info, value });
    }

    /// Removes secrets beyond the limits.
    fn drop_excess(&mut self) {
        let mut total = 0;
        let mut fits = |index: usize, secret: &StoredSecret| {
            total += secret.value.reveal().len();
            index < MAX_SECRETS && total <= MAX_TOTAL_LEN
        };
        let before = self.secrets.len();
        let mut index = 0..;
        self.secrets.retain(|_, secret| index.next().is_some_and(|index| fits(index, secret)));
        let dropped = before - self.secrets.len();
        if dropped > 0 {
            self.problems.push(format!(
                "{dropped} secrets are left out: there can be {MAX_SECRETS}, with {MAX_TOTAL_LEN} \
                 bytes in all"
            ));
        }
    }
}

/// The files in a directory, in the order of their names. Those that begin with a dot, like the
/// directories of Kubernetes' mounts, are no secrets.
fn secret_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let is_hidden =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A file's content without the newline at its end.
fn read_value(path: &Path) -> Result<SecretValue> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_file() {
        bail!("{}: is not a file", path.display());
    }
    if metadata.size() > MAX_VALUE_LEN as u64 + 2 {
        bail!("{}: longer than {MAX_VALUE_LEN} bytes", path.display());
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = Zeroizing::new(bytes);
    let value = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    checked_value(value.strip_suffix(b"\r").unwrap_or(value))
        .map_err(|problem| anyhow!("{}: {problem}", path.display()))
}

/// The names and values in a file. Errors of the TOML parser would quote values.
fn read_table(path: &Path) -> Result<Vec<(SecretName, SecretValue)>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = Zeroizing::new(text);
    let place = path.display();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        anyhow!("{place}: line {}: is not TOML", before.matches('\n').count() + 1)
    })?;
    let mut values = Vec::new();
    for (key, value) in table {
        let name =
            SecretName::parse(&key).map_err(|problem| anyhow!("{place}: {key:?}: {problem}"))?;
        let toml::Value::String(text) = value else {
            bail!("{place}: {name}: must be a string");
        };
        let value = checked_value(Zeroizing::new(text).as_bytes());
        values
            .push((name.clone(), value.map_err(|problem| anyhow!("{place}: {name}: {problem}"))?));
    }
    Ok(values)
}

/// Rejects a value that is empty or too long.
pub(super) fn checked_value(value: &[u8]) -> Result<SecretValue, String> {
    if value.is_empty() {
        return Err("is empty".to_owned());
    }
    if value.len() > MAX_VALUE_LEN {
        return Err(format!("is longer than {MAX_VALUE_LEN} bytes"));
    }
    Ok(SecretValue::new(value.to_vec()))
}

/// When a file was last written, as far as its file system says.
fn modified_at(path: &Path) -> Timestamp {
    let modified = fs::metadata(path).and_then(|file| file.modified()).ok();
    modified.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The operator's secrets have the same ID at every start.
fn id_of(name: &SecretName) -> String {
    let digest = Sha256::digest(name.as_str().as_bytes());
    format!("{SECRET_ID_PREFIX}{}", HexDisplay(&digest[..ID_BYTES]))
}

#[cfg(test)]
mod tests;
