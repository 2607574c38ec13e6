//! The secrets in force: those of the API, and the operator's.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use anyhow::Result;
use jiff::Timestamp;

use super::{
    MAX_SECRETS, MAX_TOTAL_LEN, SecretError, SecretInfo, SecretLookup, SecretMetadata, SecretName,
    SecretSource, SecretValue, metadata::check_metadata, operator_secrets::checked_value,
    state_file::SecretsStateFile, stored_secret::StoredSecret,
};
use crate::{
    hex::random_hex,
    policy::{SECRET_ID_PREFIX, ValidationError},
};

/// Random bytes of an ID.
const ID_BYTES: usize = 10;

/// The secrets of the agent. Clones share them. `Debug` shows no values.
///
/// The operator's secrets precede those of the API.
#[derive(Clone, Default)]
pub struct SecretStore(Arc<SharedSecrets>);

#[derive(Default)]
struct SharedSecrets {
    current: RwLock<CurrentSecrets>,
    /// Held while secrets of the API change. Without a file, they are in memory only.
    file: Mutex<Option<SecretsStateFile>>,
}

/// Both kinds, by name.
#[derive(Default)]
struct CurrentSecrets {
    of_api: HashMap<SecretName, StoredSecret>,
    of_operator: BTreeMap<SecretName, StoredSecret>,
}

impl SecretStore {
    /// Opens the store in `state_dir`, with the secrets that an earlier agent stored there. Blocks.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let file = SecretsStateFile::in_state_dir(state_dir);
        let stored = file.load()?.into_iter();
        let of_api = stored.map(|secret| (secret.info.name.clone(), secret)).collect();
        let current = RwLock::new(CurrentSecrets { of_api, ..CurrentSecrets::default() });
        Ok(Self(Arc::new(SharedSecrets { current, file: Mutex::new(Some(file)) })))
    }

    /// Removes the secrets that an agent stored in `state_dir`.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn remove_all(state_dir: &Path) -> Result<()> {
        SecretsStateFile::in_state_dir(state_dir).remove()
    }

    /// Creates a secret. Blocks until it is on disk.
    ///
    /// # Errors
    /// It exists, a field is invalid, there are too many, or the disk reports an error.
    pub(crate) fn create(
        &self,
        name: &str,
        value: &SecretValue,
        metadata: SecretMetadata,
    ) -> Result<SecretInfo, SecretError> {
        let name = SecretName::parse(name)
            .map_err(|problem| ValidationError::about_entry("name", name, problem))?;
        let value = parse_value(value)?;
        check_metadata(&metadata)?;
        let file = self.lock_file();
        if let Some(known) = self.read().find(name.as_str()) {
            return Err(already_there(&known.info));
        }
        let now = Timestamp::now();
        let info = SecretInfo {
            id: new_id().map_err(SecretError::Storage)?,
            name,
            version: 1,
            metadata,
            created_at: now,
            updated_at: now,
            source: SecretSource::Api,
        };
        self.put(&file, StoredSecret { info: info.clone(), value })?;
        Ok(info)
    }

    /// Gives a secret a new value, and new metadata if there is some. Blocks until it is on disk.
    ///
    /// # Errors
    /// There is no such secret, or as in [`Self::create`].
    pub(crate) fn update(
        &self,
        id_or_name: &str,
        value: &SecretValue,
        metadata: Option<SecretMetadata>,
    ) -> Result<SecretInfo, SecretError> {
        let value = parse_value(value)?;
        metadata.as_ref().map_or(Ok(()), check_metadata)?;
        let file = self.lock_file();
        let before = self.changeable(id_or_name)?;
        let info = SecretInfo {
            version: before.version + 1,
            metadata: metadata.unwrap_or_else(|| before.metadata.clone()),
            updated_at: Timestamp::now(),
            ..before
        };
        self.put(&file, StoredSecret { info: info.clone(), value })?;
        Ok(info)
    }

    /// Deletes a secret. Blocks until that is on disk.
    ///
    /// # Errors
    /// There is no such secret, it is the operator's, or the disk reports an error.
    pub(crate) fn delete(&self, id_or_name: &str) -> Result<(), SecretError> {
        let file = self.lock_file();
        let name = self.changeable(id_or_name)?.name;
        let mut next = self.read().of_api.clone();
        next.remove(&name);
        self.replace_api_secrets(&file, next)
    }

    /// What may be shown of a secret.
    ///
    /// # Errors
    /// There is no such secret.
    pub(crate) fn get(&self, id_or_name: &str) -> Result<SecretInfo, SecretError> {
        let current = self.read();
        let found = current.find(id_or_name).map(|secret| secret.info.clone());
        found.ok_or_else(|| SecretError::Unknown(id_or_name.to_owned()))
    }

    /// What may be shown of all secrets, in the order of their names.
    pub(crate) fn list(&self) -> Vec<SecretInfo> {
        let current = self.read();
        let CurrentSecrets { of_api, of_operator } = &*current;
        let hidden = |secret: &&StoredSecret| !of_operator.contains_key(&secret.info.name);
        let all = of_operator.values().chain(of_api.values().filter(hidden));
        let mut all: Vec<_> = all.map(|secret| secret.info.clone()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Replaces the operator's secrets.
    pub(super) fn replace_operator_secrets(&self, secrets: BTreeMap<SecretName, StoredSecret>) {
        self.0.current.write().unwrap_or_else(PoisonError::into_inner).of_operator = secrets;
    }

    fn put(
        &self,
        file: &Option<SecretsStateFile>,
        secret: StoredSecret,
    ) -> Result<(), SecretError> {
        let mut next = self.read().of_api.clone();
        next.insert(secret.info.name.clone(), secret);
        let total: usize = next.values().map(|secret| secret.value.reveal().len()).sum();
        if next.len() > MAX_SECRETS || total > MAX_TOTAL_LEN {
            return Err(SecretError::TooMany(format!(
                "there can be {MAX_SECRETS} secrets, with {MAX_TOTAL_LEN} bytes in all; delete some"
            )));
        }
        self.replace_api_secrets(file, next)
    }

    fn replace_api_secrets(
        &self,
        file: &Option<SecretsStateFile>,
        next: HashMap<SecretName, StoredSecret>,
    ) -> Result<(), SecretError> {
        if let Some(file) = file {
            file.save(next.values()).map_err(SecretError::Storage)?;
        }
        self.0.current.write().unwrap_or_else(PoisonError::into_inner).of_api = next;
        Ok(())
    }

    /// What may be shown of a secret that a request may change.
    fn changeable(&self, id_or_name: &str) -> Result<SecretInfo, SecretError> {
        let info = self.get(id_or_name)?;
        match info.source {
            SecretSource::Api => Ok(info),
            source_key => Err(SecretError::FromOperator { name: info.name, source_key }),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, CurrentSecrets> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_file(&self) -> MutexGuard<'_, Option<SecretsStateFile>> {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CurrentSecrets {
    fn by_name(&self, name: &SecretName) -> Option<&StoredSecret> {
        self.of_operator.get(name).or_else(|| self.of_api.get(name))
    }

    fn find(&self, id_or_name: &str) -> Option<&StoredSecret> {
        if id_or_name.starts_with(SECRET_ID_PREFIX) {
            let mut all = self.of_operator.values().chain(self.of_api.values());
            return all.find(|secret| secret.info.id == id_or_name);
        }
        self.by_name(&SecretName::parse(id_or_name).ok()?)
    }
}

impl SecretLookup for SecretStore {
    fn current_value(&self, name: &SecretName) -> Option<SecretValue> {
        self.read().by_name(name).map(|secret| secret.value.clone())
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretStore(…)")
    }
}

fn already_there(info: &SecretInfo) -> SecretError {
    let name = info.name.clone();
    match info.source {
        SecretSource::Api => SecretError::Exists(name),
        source_key => SecretError::FromOperator { name, source_key },
    }
}

fn parse_value(value: &SecretValue) -> Result<SecretValue, ValidationError> {
    checked_value(value.reveal()).map_err(|problem| ValidationError::about_field("value", problem))
}

fn new_id() -> Result<String> {
    Ok(format!("{SECRET_ID_PREFIX}{}", random_hex::<ID_BYTES>()?))
}

#[cfg(test)]
mod tests;
