//! Removes the namespaces, mounts and directories of earlier runs that were killed before they
//! could clean up. The names contain the process ID, so that only those of dead processes are
//! removed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use nix::mount::{MntFlags, umount2};

use super::command;

const STALE_PREFIX: &str = "policy-test-";

/// Cleans up once per process. Entries that cannot be removed do no harm.
pub(super) fn clean_up_once() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        for namespace in stale_entries(Path::new("/run/netns")) {
            let name = namespace.file_name().unwrap_or_default();
            let _ = command::run(Command::new("ip").args(["netns", "del"]).arg(name));
        }
        for directory in stale_entries(&std::env::temp_dir()) {
            // Unmounts first: pins must not be removed one by one.
            let _ = umount2(&directory, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir_all(&directory);
        }
    });
}

/// The entries of a directory that carry the ID of a dead process.
fn stale_entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_stale(path)).collect()
}

fn is_stale(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let pid = name.strip_prefix(STALE_PREFIX).and_then(|rest| rest.split('-').next());
    let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}
