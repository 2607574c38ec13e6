//! The secrets of the API on disk: one file that only the agent's user may read, replaced as a whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    SecretInfo, SecretMetadata, SecretName, SecretSource, SubmittedValue,
    stored_secret::StoredSecret,
};
use crate::private_file::{NEW_EXTENSION, remove_if_exists, replace_private_file};

/// Version of the file format.
const FILE_VERSION: u32 = 1;
const FILE_NAME: &str = "secrets.json";

#[derive(Deserialize)]
struct SecretsFile {
    version: u32,
    secrets: Vec<ReadSecret>,
}

#[derive(Deserialize)]
struct ReadSecret {
    id: String,
    name: String,
    version: u64,
    metadata: SecretMetadata,
    created_at: Timestamp,
    updated_at: Timestamp,
    value: SubmittedValue,
}

#[derive(Serialize)]
struct SecretsFileRef<'a> {
    version: u32,
    secrets: Vec<WrittenSecret<'a>>,
}

#[derive(Serialize)]
struct WrittenSecret<'a> {
    id: &'a str,
    name: &'a str,
    version: u64,
    metadata: &'a SecretMetadata,
    created_at: Timestamp,
    updated_at: Timestamp,
    value: &'a str,
}

/// The file of the secrets in `state_dir`.
#[derive(Debug)]
pub(super) struct SecretsStateFile(PathBuf);

impl SecretsStateFile {
    pub(super) fn in_state_dir(state_dir: &Path) -> Self {
        Self(state_dir.join(FILE_NAME))
    }

    /// Removes the file, and what may be beside it.
    ///
    /// # Errors
    /// The disk reports an error.
    pub(super) fn remove(&self) -> Result<()> {
        for path in [&self.0, &self.0.with_extension(NEW_EXTENSION), &self.broken_path()] {
            remove_if_exists(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    fn broken_path(&self) -> PathBuf {
        self.0.with_extension("json.broken")
    }

    /// Reads the secrets. A file that cannot be understood is set aside, and there are none.
    ///
    /// # Errors
    /// The disk reports an error.
    pub(super) fn load(&self) -> Result<Vec<StoredSecret>> {
        let text = match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => {
                Zeroizing::new(text.with_context(|| format!("cannot read {}", self.0.display()))?)
            }
        };
        parse(&text).or_else(|error| {
            let aside = self.broken_path();
            tracing::error!(file = %aside.display(), "set aside the secrets of the API: {error:#}");
            fs::rename(&self.0, &aside).context("cannot set aside the broken secrets")?;
            Ok(Vec::new())
        })
    }

    /// Replaces the file, and waits for the disk.
    pub(super) fn save<'a>(&self, secrets: impl Iterator<Item = &'a StoredSecret>) -> Result<()> {
        let text = serialize(secrets)?;
        replace_private_file(&self.0, &text)
            .with_context(|| format!("cannot write {}: is the disk full?", self.0.display()))
    }
}

fn serialize<'a>(secrets: impl Iterator<Item = &'a StoredSecret>) -> Result<Zeroizing<Vec<u8>>> {
    let write = |secret: &'a StoredSecret| {
        let StoredSecret { info, value } = secret;
        Ok(WrittenSecret {
            id: &info.id,
            name: info.name.as_str(),
            version: info.version,
            metadata: &info.metadata,
            created_at: info.created_at,
            updated_at: info.updated_at,
            value: std::str::from_utf8(value.reveal())
                .map_err(|_| anyhow!("the value of {} is not text", info.name))?,
        })
    };
    let secrets = secrets.map(write).collect::<Result<_>>()?;
    let file = SecretsFileRef { version: FILE_VERSION, secrets };
    Ok(Zeroizing::new(serde_json::to_vec(&file)?))
}

/// Errors do not quote the file.
fn parse(text: &[u8]) -> Result<Vec<StoredSecret>> {
    let file: SecretsFile = serde_json::from_slice(text)
        .map_err(|error| anyhow!("it is not what an agent writes, at line {}", error.line()))?;
    if file.version != FILE_VERSION {
        bail!("it has version {}, and this agent reads version {FILE_VERSION}", file.version);
    }
    let secret = |read: ReadSecret| {
        let info = SecretInfo {
            id: read.id,
            name: SecretName::parse(&read.name).map_err(|problem| anyhow!(problem))?,
            version: read.version,
            metadata: read.metadata,
            created_at: read.created_at,
            updated_at: read.updated_at,
            source: SecretSource::Api,
        };
        Ok(StoredSecret { info, value: read.value.0 })
    };
    file.secrets.into_iter().map(secret).collect()
}
