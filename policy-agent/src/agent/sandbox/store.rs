//! The sandboxes on disk, which outlive the agent: one JSON file each, replaced as a whole. A journal
//! beside the files makes changes durable.
//!
//! A file contains the password of `egressProxy` and the traffic token, so only the agent's user
//! may read it. So does the journal.

#[cfg(test)]
mod fuzz;
mod journal;
mod state_file;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, anyhow};

use self::journal::StateJournal;
use super::lifetime::PersistedLifetime;
use crate::{
    ca::SandboxCaStore,
    dataplane::Slot,
    policy::{SandboxId, SandboxSpec},
    private_file::remove_if_exists,
};

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

/// The directory of the state files.
#[derive(Debug)]
pub struct SandboxStore {
    directory: PathBuf,
    journal: Mutex<StateJournal>,
    authorities: SandboxCaStore,
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
        let journal = Mutex::new(StateJournal::new(directory.clone()));
        Ok(Self { directory, journal, authorities: SandboxCaStore::new(state_dir) })
    }

    /// Reads all sandboxes. Renames broken files and continues with the others. After a crash of
    /// the host, takes what the journal has.
    ///
    /// # Errors
    /// The directory or the journal cannot be read.
    pub fn load(&self) -> Result<LoadedSandboxes> {
        let unwritten = self.restore_lost_files()?;
        let mut loaded = LoadedSandboxes::default();
        for path in self.list_files()? {
            if !unwritten.contains_key(&path) {
                let text = fs::read(&path).map_err(Into::into);
                loaded.add(&path, text.and_then(|text| state_file::parse_record(&path, &text)));
            }
        }
        for (path, text) in &unwritten {
            if let Some(text) = text {
                loaded.add(path, state_file::parse_record(path, text));
            }
        }
        self.remove_orphaned_authorities(&loaded);
        Ok(loaded)
    }

    /// Removes the authorities of sandboxes that have ended. One that is set aside keeps its own.
    fn remove_orphaned_authorities(&self, loaded: &LoadedSandboxes) {
        let records = loaded.records.iter().map(|record| record.spec.sandbox_id.as_str());
        let broken = loaded.broken.iter().filter_map(|(path, _)| path.file_stem()?.to_str());
        if let Err(error) = self.authorities.retain(&records.chain(broken).collect()) {
            tracing::error!("cannot remove the CAs of sandboxes that have ended: {error}");
        }
    }

    /// Writes the state files again that a crash of the host may have damaged. Returns the contents
    /// of those that cannot be written now.
    fn restore_lost_files(&self) -> Result<BTreeMap<PathBuf, Option<Vec<u8>>>> {
        let mut journal = self.lock_journal();
        let lost = journal.read_lost_changes().context("cannot read the journal of the state")?;
        let mut unwritten = BTreeMap::new();
        if lost.is_empty() {
            return Ok(unwritten);
        }
        tracing::info!(sandboxes = lost.len(), "restored from the journal after a restart");
        for (id, text) in lost {
            let path = self.directory.join(format!("{id}.json"));
            let restored = match &text {
                Some(text) => state_file::write_new(&path, text)
                    .and_then(|()| state_file::replace_with_new(&path)),
                None => remove_if_exists(&path).map(|_| ()),
            };
            if let Err(error) = restored {
                tracing::error!("cannot restore {}: {error}", path.display());
                unwritten.insert(path, text);
            }
        }
        if unwritten.is_empty()
            && let Err(error) = journal.retire_all()
        {
            tracing::error!("cannot retire the journal of the state files: {error}");
        }
        Ok(unwritten)
    }

    /// Writes a sandbox, as [`Self::save_all`] does.
    ///
    /// # Errors
    /// The disk reports an error. The previous record stays.
    pub fn save(&self, record: &SandboxRecord) -> Result<()> {
        self.save_all(std::slice::from_ref(record))
    }

    /// Writes sandboxes, and waits for the disk once. Once this returns, a crash of the host leaves
    /// these records or later ones.
    ///
    /// # Errors
    /// The disk reports an error. The previous records stay.
    pub fn save_all(&self, records: &[SandboxRecord]) -> Result<()> {
        let mut files = BTreeMap::new();
        for record in records {
            let path = self.file_path(&record.spec.sandbox_id);
            files.insert(path, (record, state_file::serialize_record(record)?));
        }
        let written = self.replace_files(&files);
        written.map_err(|(path, error)| {
            files.keys().for_each(|path| state_file::discard_new(path));
            let problem = format!("cannot write {}: is the disk full?", path.display());
            anyhow::Error::new(error).context(problem)
        })
    }

    /// Writes the new files before the journal, so that a full disk is noticed before anything
    /// changes, and puts them in place after it, so that a crash leaves whole files or the journal.
    fn replace_files(
        &self,
        files: &BTreeMap<PathBuf, (&SandboxRecord, Vec<u8>)>,
    ) -> Result<(), (PathBuf, io::Error)> {
        for (path, (_, text)) in files {
            state_file::write_new(path, text).map_err(|error| (path.clone(), error))?;
        }
        let entries: Vec<_> = files
            .values()
            .map(|(record, text)| (record.spec.sandbox_id.as_str(), Some(text.as_slice())))
            .collect();
        let mut journal = self.lock_journal();
        let in_directory = |error| (self.directory.clone(), error);
        let journaled = journal.append(&entries);
        if journaled.is_err() {
            journal::sync_file_system(&self.directory).map_err(in_directory)?;
        }
        for path in files.keys() {
            state_file::replace_with_new(path).map_err(|error| (path.clone(), error))?;
        }
        // Without the journal, its earlier changes must not come back either.
        journaled.or_else(|_| journal.retire_all()).map_err(in_directory)
    }

    /// Removes the file of a sandbox, if there is one.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn remove(&self, id: &SandboxId) -> Result<()> {
        self.remove_all_of(&[id]).pop().unwrap_or(Ok(()))
    }

    /// Removes the files of sandboxes, if there are any, and waits for the disk once. Returns the
    /// result of each.
    pub fn remove_all_of(&self, ids: &[&SandboxId]) -> Vec<Result<()>> {
        let unlink = |id: &&SandboxId| remove_if_exists(&self.file_path(id));
        let unlinked: Vec<_> = ids.iter().map(unlink).collect();
        for id in ids {
            if let Err(error) = self.authorities.remove(id) {
                tracing::error!(sandbox = %id, "cannot remove its CA: {error}");
            }
        }
        let entries: Vec<_> = ids
            .iter()
            .zip(&unlinked)
            .filter(|(_, unlinked)| matches!(unlinked, Ok(true)))
            .map(|(id, _)| (id.as_str(), None))
            .collect();
        let mut journal = self.lock_journal();
        let journaled = match entries.is_empty() {
            true => Ok(()),
            false => journal.append(&entries).or_else(|_| journal.retire_all()),
        };
        let problem = journaled.err().map(|error| error.to_string());
        let results = ids.iter().zip(unlinked).map(|(id, unlinked)| {
            let context = || format!("cannot remove {}", self.file_path(id).display());
            let was_there = unlinked.with_context(context)?;
            match problem.as_ref().filter(|_| was_there) {
                Some(problem) => Err(anyhow!(problem.clone()).context(context())),
                None => Ok(()),
            }
        });
        results.collect()
    }

    /// Removes everything that the agent stores, including broken files.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn remove_all(state_dir: &Path) -> Result<()> {
        let authorities = SandboxCaStore::new(state_dir).remove_all();
        authorities.context("cannot remove the CAs of sandboxes")?;
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

    /// A poisoned lock is usable: an incomplete change starts another journal.
    fn lock_journal(&self) -> MutexGuard<'_, StateJournal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoadedSandboxes {
    /// Adds a record, or sets its file aside.
    fn add(&mut self, path: &Path, parsed: Result<SandboxRecord>) {
        match parsed {
            Ok(record) => self.records.push(record),
            Err(error) => {
                let broken_path = path.with_extension(BROKEN_EXTENSION);
                let error = match fs::rename(path, &broken_path) {
                    Ok(()) => error,
                    Err(problem) => error.context(format!("cannot set it aside: {problem}")),
                };
                self.broken.push((broken_path, error));
            }
        }
    }
}

fn sandboxes_directory(state_dir: &Path) -> PathBuf {
    state_dir.join("sandboxes")
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
        let lifetime = PersistedLifetime {
            traffic_token: token,
            issued_tokens: Vec::new(),
            started_at: None,
            lease,
        };
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

    /// Makes the journal look as if the host had crashed since.
    fn crash_host(state: &Path) {
        let journal = state.join("sandboxes/journal-1");
        let text = fs::read_to_string(&journal).expect("a journal");
        let (_, entries) = text.split_once('\n').expect("a header");
        let header = "policy-agent journal 1 00000000-0000-0000-0000-000000000000";
        fs::write(journal, format!("{header}\n{entries}")).expect("written");
    }

    #[test]
    fn what_the_disk_lost_in_a_crash_of_the_host_is_restored() {
        let state = tempfile::tempdir().expect("a directory");
        let store = SandboxStore::open(state.path()).expect("a store");
        let (a, b, c) = (sample_record("a"), sample_record("b"), sample_record("c"));
        store.save_all(&[a.clone(), b.clone(), c.clone()]).expect("saved");
        store.remove(&c.spec.sandbox_id).expect("removed");
        let file = |name: &str| state.path().join("sandboxes").join(name);
        fs::copy(file("a.json"), file("c.json")).expect("the disk forgets the removal");
        fs::write(file("a.json"), "").expect("the disk has no contents");
        fs::remove_file(file("b.json")).expect("the disk forgets the file");
        crash_host(state.path());
        let store = SandboxStore::open(state.path()).expect("a store");
        assert_eq!(store.load().expect("loaded").records, [a.clone(), b.clone()]);
        assert!(!file("journal-1").exists());
        assert_eq!(store.load().expect("loaded").records, [a, b]);
    }

    #[test]
    fn without_a_crash_of_the_host_the_files_count() {
        let state = tempfile::tempdir().expect("a directory");
        let store = SandboxStore::open(state.path()).expect("a store");
        let (a, b) = (sample_record("a"), sample_record("b"));
        store.save_all(&[a.clone(), b]).expect("saved");
        fs::remove_file(state.path().join("sandboxes/b.json")).expect("removed by hand");
        let store = SandboxStore::open(state.path()).expect("a store");
        assert_eq!(store.load().expect("loaded").records, [a]);
    }

    #[test]
    fn only_the_agents_user_may_read_the_journal() {
        let state = tempfile::tempdir().expect("a directory");
        let store = SandboxStore::open(state.path()).expect("a store");
        store.save(&sample_record("a")).expect("saved");
        let journal = state.path().join("sandboxes/journal-1");
        let mode = fs::metadata(journal).expect("the journal").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
