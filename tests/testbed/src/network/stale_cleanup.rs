//! What an earlier run left behind that was killed before it could clean up: its namespaces, mounts
//! and directories. Their names hold the process's ID, so that only those of the dead are taken.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use nix::mount::{MntFlags, umount2};

use super::command;

const STALE_PREFIX: &str = "policy-test-";

/// Sweeps once per process. What cannot be removed is in nobody's way.
pub(super) fn clean_up_once() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        for namespace in stale_entries(Path::new("/run/netns")) {
            let name = namespace.file_name().unwrap_or_default();
            let _ = command::run(Command::new("ip").args(["netns", "del"]).arg(name));
        }
        for directory in stale_entries(&std::env::temp_dir()) {
            // First what is mounted there: pins are not to be removed one by one.
            let _ = umount2(&directory, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir_all(&directory);
        }
    });
}

/// What stands in a directory with the name of a process that is no more.
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
