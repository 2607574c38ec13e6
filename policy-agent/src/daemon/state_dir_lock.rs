//! A lock file that allows one agent per state directory. It contains the agent's process ID.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// While this exists, no other agent uses the state directory.
#[derive(Debug)]
pub(crate) struct StateDirLock {
    file: Flock<File>,
    path: PathBuf,
}

impl StateDirLock {
    /// Locks the state directory. Creates it if it is missing.
    ///
    /// # Errors
    /// Another agent uses the directory, and the error names its process. Or the directory cannot
    /// be created.
    pub(crate) fn acquire(state_dir: &Path) -> Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
        made.with_context(|| {
            format!(
                "cannot make {}: be root, or give --state-dir another place",
                state_dir.display()
            )
        })?;
        let path = state_dir.join("lock");
        loop {
            let lock = Self::lock_file(&path)?;
            if lock.is_at_its_path() {
                return lock.write_pid();
            } // otherwise `cleanup` removed the file: retry
        }
    }

    fn lock_file(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options
            .open(path)
            .with_context(|| format!("cannot open {}: are you root?", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { file, path: path.to_owned() }),
            Err((mut file, _)) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder); // best effort, for the message
                let (holder, directory) = (holder.trim(), path.parent().unwrap_or(path).display());
                bail!("an agent (process {holder}) works with {directory}: stop it first")
            }
        }
    }

    fn is_at_its_path(&self) -> bool {
        let at_path = fs::metadata(&self.path);
        let open_file = self.file.metadata();
        matches!((at_path, open_file), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
    }

    fn write_pid(mut self) -> Result<Self> {
        self.file.set_len(0)?;
        writeln!(self.file, "{}", std::process::id())?;
        Ok(self)
    }

    /// Removes the file, and the directory if it is then empty.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
        if let Some(directory) = self.path.parent() {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_names_the_first() {
        let state = tempfile::tempdir().expect("a directory");
        let first = StateDirLock::acquire(state.path()).expect("free");
        let problem = StateDirLock::acquire(state.path()).expect_err("taken").to_string();
        assert!(problem.contains(&std::process::id().to_string()), "{problem}");
        drop(first);
        let second = StateDirLock::acquire(state.path()).expect("free again");
        second.remove();
        assert!(!state.path().exists());
    }
}
