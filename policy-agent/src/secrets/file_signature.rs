//! Tells whether a file has changed, without reading it.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

/// What differs after a file was written or replaced. Of a link, it is that of the target.
#[derive(PartialEq, Eq)]
pub(super) struct FileSignature {
    path: PathBuf,
    /// `None` if the file cannot be looked at.
    state: Option<FileState>,
}

#[derive(PartialEq, Eq)]
struct FileState {
    inode: u64,
    size: u64,
    /// In seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileSignature {
    /// Looks at a file.
    pub(super) fn of(path: PathBuf) -> Self {
        let state = fs::metadata(&path).ok().map(|file| FileState {
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        });
        Self { path, state }
    }
}
