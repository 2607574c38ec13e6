//! The sandboxes on disk, which outlive the agent: one JSON file each, replaced as a whole.
//!
//! A file contains the password of `egressProxy` and the traffic token, so only the agent's user
//! may read it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

#[cfg(test)]
mod fuzz;

use super::lifetime::PersistedLifetime;
use crate::{
    dataplane::Slot,
    policy::{SandboxId, SandboxSpec},
};

/// Version of the file format. Files with another version, such as those of a newer agent, are
/// rejected.
const FILE_VERSION: u32 = 1;
const BROKEN_EXTENSION: &str = "broken";

/// A sandbox as stored on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxRecord {
    /// Its index in the kernel's arrays.
    pub slot: Slot,
    /// The requested specification.
    pub spec: SandboxSpec,
    /// Its lifetime. Parts are missing in the file of an older agent.
    pub lifetime: PersistedLifetime,
}

/// The result of [`SandboxStore::load`].
#[derive(Debug, Default)]
pub struct LoadedSandboxes {
    /// The sandboxes whose files could be read.
    pub records: Vec<SandboxRecord>,
    /// Files that could not be read, and why. They were renamed to `<id>.broken`.
    pub broken: Vec<(PathBuf, anyhow::Error)>,
}

#[derive(Deserialize)]
struct StateFile {
    version: u32,
    slot: Slot,
    sandbox: SandboxSpec,
    #[serde(flatten)]
    lifetime: PersistedLifetime,
}

#[derive(Serialize)]
struct StateFileRef<'a> {
    version: u32,
    slot: Slot,
    sandbox: serde_json::Value,
    #[serde(flatten)]
    lifetime: &'a PersistedLifetime,
}

/// The directory of the state files.
#[derive(Debug)]
pub struct SandboxStore {
    directory: PathBuf,
}

impl SandboxStore {
    /// Opens the store in `state_dir`, and creates its directory if that is missing.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let directory = sandboxes_directory(state_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(|| {
            format!("cannot make {}: give state_dir another place", directory.display())
        })?;
        Ok(Self { directory })
    }

    /// Reads all sandboxes. Renames broken files and continues with the others.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn load(&self) -> Result<LoadedSandboxes> {
        let mut loaded = LoadedSandboxes::default();
        for path in self.list_files()? {
            match read_record(&path) {
                Ok(entry) => loaded.records.push(entry),
                Err(error) => {
                    let broken_path = path.with_extension(BROKEN_EXTENSION);
                    let moved = fs::rename(&path, &broken_path);
                    let error = match moved {
                        Ok(()) => error,
                        Err(problem) => error.context(format!("cannot set it aside: {problem}")),
                    };
                    loaded.broken.push((broken_path, error));
                }
            }
        }
        Ok(loaded)
    }

    /// Writes a sandbox. Once this returns, a crash of the host leaves this record or a later one.
    ///
    /// # Errors
    /// The disk reports an error. The previous record stays.
    pub fn save(&self, record: &SandboxRecord) -> Result<()> {
        let id = &record.spec.sandbox_id;
        let path = self.file_path(id);
        let text = serde_json::to_vec(&StateFileRef {
            version: FILE_VERSION,
            slot: record.slot,
            sandbox: record.spec.to_json_with_secrets()?,
            lifetime: &record.lifetime,
        })?;
        self.write_atomically(&path, &text)
            .with_context(|| format!("cannot write {}: is the disk full?", path.display()))
    }

    /// Removes the file of a sandbox, if there is one.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn remove(&self, id: &SandboxId) -> Result<()> {
        let path = self.file_path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => self.sync_directory(),
        }
    }

    /// Removes everything that the agent stores, including broken files.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn remove_all(state_dir: &Path) -> Result<()> {
        let directory = sandboxes_directory(state_dir);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }

    fn list_files(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.directory)
            .with_context(|| format!("cannot list {}", self.directory.display()))?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        Ok(paths)
    }

    fn file_path(&self, id: &SandboxId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn write_atomically(&self, path: &Path, text: &[u8]) -> Result<()> {
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        self.sync_directory()
    }

    /// A rename is durable only when its directory is.
    fn sync_directory(&self) -> Result<()> {
        Ok(File::open(&self.directory)?.sync_all()?)
    }
}

fn sandboxes_directory(state_dir: &Path) -> PathBuf {
    state_dir.join("sandboxes")
}

fn read_record(path: &Path) -> Result<SandboxRecord> {
    let text = fs::read(path)?;
    let StateFile { version, slot, sandbox, lifetime } =
        serde_json::from_slice(&text).map_err(redacted_error)?;
    if version != FILE_VERSION {
        bail!("it has version {version}, and this agent reads version {FILE_VERSION}");
    }
    let file_name_id = path.file_stem().and_then(|name| name.to_str());
    if file_name_id != Some(sandbox.sandbox_id.as_str()) {
        bail!("it holds sandbox {}, which its name contradicts", sandbox.sandbox_id);
    }
    Ok(SandboxRecord { slot, spec: sandbox, lifetime })
}

/// Describes what is wrong with a file without quoting it: the file contains secrets, and the error
/// is logged.
fn redacted_error(error: serde_json::Error) -> anyhow::Error {
    match error.classify() {
        Category::Data => {
            let (line, column) = (error.line(), error.column());
            anyhow!("it is not what an agent writes, at line {line}, column {column}")
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{
        agent::sandbox::lease::{PersistedLease, SandboxMetadata},
        policy::SecretString,
    };

    fn sample_record(id: &str) -> SandboxRecord {
        let spec = format!(
            r#"{{"sandboxID":"{id}","interface":"tap0","addresses":["10.11.0.2"],"network":
            {{"egressProxy":{{"address":"proxy.example:1080","username":"u","password":"p"}}}}}}"#
        );
        let spec = serde_json::from_str(&spec).expect("a sandbox");
        let token = Some(SecretString::new("t0ken".to_owned()));
        let ends = "2026-11-25T10:00:00Z".parse().expect("a time");
        let lease = Some(PersistedLease {
            ends_at: ends,
            metadata: SandboxMetadata::default(),
            idempotency: None,
        });
        let lifetime = PersistedLifetime { traffic_token: token, started_at: None, lease };
        SandboxRecord { slot: Slot::new(7).expect("a slot"), spec, lifetime }
    }

    #[test]
    fn what_is_saved_is_loaded_with_its_secrets() {
        let state = tempfile::tempdir().expect("a directory");
        let store = SandboxStore::open(state.path()).expect("a store");
        let (a, b) = (sample_record("a"), sample_record("b"));
        store.save(&b).expect("saved");
        store.save(&a).expect("saved");
        store.save(&a).expect("replaced");
        assert_eq!(store.load().expect("loaded").records, [a.clone(), b.clone()]);
        store.remove(&a.spec.sandbox_id).expect("removed");
        store.remove(&a.spec.sandbox_id).expect("removing twice is no error");
        assert_eq!(store.load().expect("loaded").records, [b]);
    }

    #[test]
    fn only_the_agents_user_may_read() {
        let state = tempfile::tempdir().expect("a directory");
        let store = SandboxStore::open(state.path()).expect("a store");
        store.save(&sample_record("a")).expect("saved");
        let file = state.path().join("sandboxes/a.json");
        let mode = fs::metadata(file).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_set_aside_and_the_others_are_served() {
        let state = tempfile::tempdir().expect("a directory");
        let store = SandboxStore::open(state.path()).expect("a store");
        store.save(&sample_record("good")).expect("saved");
        let files = state.path().join("sandboxes");
        fs::write(files.join("half.json"), "{\"version\":1,").expect("written");
        fs::write(files.join("future.json"), "{\"version\":99}").expect("written");
        fs::copy(files.join("good.json"), files.join("other.json")).expect("copied");
        let loaded = store.load().expect("loaded");
        assert_eq!(loaded.records, [sample_record("good")]);
        assert_eq!(loaded.broken.len(), 3);
        assert!(files.join("half.broken").exists());
        assert!(store.load().expect("loaded").broken.is_empty());
    }
}
