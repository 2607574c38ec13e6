//! The sandboxes on disk, so that they outlive the agent: one JSON file each, replaced whole.
//!
//! A file holds the egress proxy's password and the traffic token, so only the agent's user may read it.

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

use crate::{
    dataplane::Slot,
    life::Kept,
    policy::{SandboxId, SandboxSpec},
};

/// Shape of the files. One that a newer agent wrote is not guessed at.
const VERSION: u32 = 1;
const BROKEN: &str = "broken";

/// A sandbox as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the kernel's tables.
    pub slot: Slot,
    /// What was asked for.
    pub spec: SandboxSpec,
    /// Its life; parts are missing in the file of an older agent.
    pub life: Kept,
}

/// What [`Store::load`] found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Every sandbox whose file could be read.
    pub entries: Vec<Entry>,
    /// Files that could not be, and why. They were renamed to `<id>.broken`.
    pub broken: Vec<(PathBuf, anyhow::Error)>,
}

#[derive(Deserialize)]
struct Reading {
    version: u32,
    slot: Slot,
    sandbox: SandboxSpec,
    #[serde(flatten)]
    life: Kept,
}

#[derive(Serialize)]
struct Writing<'a> {
    version: u32,
    slot: Slot,
    sandbox: serde_json::Value,
    #[serde(flatten)]
    life: &'a Kept,
}

/// The directory of the files.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens `state_dir`, which is made if it is missing.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let directory = directory(state_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(|| {
            format!("cannot make {}: give state_dir another place", directory.display())
        })?;
        Ok(Self { directory })
    }

    /// Reads every sandbox. A broken file is set aside, and the others are served.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn load(&self) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        for path in self.files()? {
            match read(&path) {
                Ok(entry) => loaded.entries.push(entry),
                Err(error) => {
                    let aside = path.with_extension(BROKEN);
                    let moved = fs::rename(&path, &aside);
                    let error = match moved {
                        Ok(()) => error,
                        Err(problem) => error.context(format!("cannot set it aside: {problem}")),
                    };
                    loaded.broken.push((aside, error));
                }
            }
        }
        Ok(loaded)
    }

    /// Writes a sandbox. Once this returns, a crash of the machine leaves it or its successor.
    ///
    /// # Errors
    /// The disk refuses; what was there before stays.
    pub fn save(&self, entry: &Entry) -> Result<()> {
        let id = &entry.spec.sandbox_id;
        let path = self.path(id);
        let text = serde_json::to_vec(&Writing {
            version: VERSION,
            slot: entry.slot,
            sandbox: entry.spec.with_secrets()?,
            life: &entry.life,
        })?;
        self.replace(&path, &text)
            .with_context(|| format!("cannot write {}: is the disk full?", path.display()))
    }

    /// Forgets a sandbox, which need not be there.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&self, id: &SandboxId) -> Result<()> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => self.sync(),
        }
    }

    /// Removes everything that this agent keeps, the set-aside files too.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn destroy(state_dir: &Path) -> Result<()> {
        let directory = directory(state_dir);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.directory)
            .with_context(|| format!("cannot list {}", self.directory.display()))?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        Ok(paths)
    }

    fn path(&self, id: &SandboxId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn replace(&self, path: &Path, text: &[u8]) -> Result<()> {
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        self.sync()
    }

    /// A rename is on disk only when its directory is.
    fn sync(&self) -> Result<()> {
        Ok(File::open(&self.directory)?.sync_all()?)
    }
}

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("sandboxes")
}

fn read(path: &Path) -> Result<Entry> {
    let text = fs::read(path)?;
    let Reading { version, slot, sandbox, life } = serde_json::from_slice(&text).map_err(told)?;
    if version != VERSION {
        bail!("it has version {version}, and this agent reads version {VERSION}");
    }
    let named = path.file_stem().and_then(|name| name.to_str());
    if named != Some(sandbox.sandbox_id.as_str()) {
        bail!("it holds sandbox {}, which its name contradicts", sandbox.sandbox_id);
    }
    Ok(Entry { slot, spec: sandbox, life })
}

/// What is wrong with a file, without a word of it: there are secrets in it, and this is logged.
fn told(error: serde_json::Error) -> anyhow::Error {
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
        life::{Lease, Origin},
        policy::Secret,
    };

    fn entry(id: &str) -> Entry {
        let spec = format!(
            r#"{{"sandboxID":"{id}","interface":"tap0","addresses":["10.11.0.2"],"network":
            {{"egressProxy":{{"address":"proxy.example:1080","username":"u","password":"p"}}}}}}"#
        );
        let spec = serde_json::from_str(&spec).expect("a sandbox");
        let token = Some(Secret::new("t0ken".to_owned()));
        let ends = "2026-11-25T10:00:00Z".parse().expect("a time");
        let lease = Some(Lease { ends, origin: Origin::default(), idempotency: None });
        let life = Kept { token, started: None, lease };
        Entry { slot: Slot::new(7).expect("a slot"), spec, life }
    }

    #[test]
    fn what_is_saved_is_loaded_with_its_secrets() {
        let state = tempfile::tempdir().expect("a directory");
        let store = Store::open(state.path()).expect("a store");
        let (a, b) = (entry("a"), entry("b"));
        store.save(&b).expect("saved");
        store.save(&a).expect("saved");
        store.save(&a).expect("replaced");
        assert_eq!(store.load().expect("loaded").entries, [a.clone(), b.clone()]);
        store.remove(&a.spec.sandbox_id).expect("removed");
        store.remove(&a.spec.sandbox_id).expect("removing twice is no error");
        assert_eq!(store.load().expect("loaded").entries, [b]);
    }

    #[test]
    fn only_the_agents_user_may_read() {
        let state = tempfile::tempdir().expect("a directory");
        let store = Store::open(state.path()).expect("a store");
        store.save(&entry("a")).expect("saved");
        let file = state.path().join("sandboxes/a.json");
        let mode = fs::metadata(file).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_set_aside_and_the_others_are_served() {
        let state = tempfile::tempdir().expect("a directory");
        let store = Store::open(state.path()).expect("a store");
        store.save(&entry("good")).expect("saved");
        let files = state.path().join("sandboxes");
        fs::write(files.join("half.json"), "{\"version\":1,").expect("written");
        fs::write(files.join("future.json"), "{\"version\":99}").expect("written");
        fs::copy(files.join("good.json"), files.join("other.json")).expect("copied");
        let loaded = store.load().expect("loaded");
        assert_eq!(loaded.entries, [entry("good")]);
        assert_eq!(loaded.broken.len(), 3);
        assert!(files.join("half.broken").exists());
        assert!(store.load().expect("loaded").broken.is_empty());
    }
}
