//! Files that only the agent's user may read, replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Extension of a file that is about to replace another.
pub(crate) const NEW_EXTENSION: &str = "new";

/// Replaces a file, and waits for the disk. After a crash, the file has the old contents or the new.
///
/// # Errors
/// The disk reports an error. The previous file stays.
pub(crate) fn replace_private_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension(NEW_EXTENSION);
    let replaced = write_new(&new, contents).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&new); // the first error is reported
    }
    replaced?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A file that a crash left may have another mode.
    remove_if_exists(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Removes a file. Returns whether there was one. Does not wait for the disk.
///
/// # Errors
/// The disk reports an error.
pub(crate) fn remove_if_exists(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_only_the_owner_may_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key.pem");
        // What a crash left.
        fs::write(path.with_extension(NEW_EXTENSION), "half").expect("written");
        for contents in ["one", "two"] {
            replace_private_file(&path, contents.as_bytes()).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("read"), contents);
        }
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1);
        assert!(remove_if_exists(&path).expect("removed"));
        assert!(!remove_if_exists(&path).expect("nothing to remove"));
    }
}
