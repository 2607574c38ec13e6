//! Checks of the operator's secrets: that the agent can read them, and that other users cannot.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::DoctorFinding;
use crate::{config::AgentConfig, secrets::OperatorSecrets};

const WHAT: &str = "secrets";
/// The permission of every user to read a file (inode(7)).
const OTHERS_READ: u32 = 0o004;
/// The permission of every user to reach what is in a directory.
const OTHERS_SEARCH: u32 = 0o001;

/// Reads the operator's secrets like the agent, which keeps old values where this fails.
pub(super) fn check_secrets(config: &AgentConfig) -> Vec<DoctorFinding> {
    let sources = config.secret_sources();
    if sources.is_empty() {
        return Vec::new();
    }
    let Some(read) = OperatorSecrets::default().refreshed(&sources, true) else {
        return Vec::new();
    };
    let fix = "fix it; until then a running agent keeps the old values";
    let problems = read.problems().iter();
    let broken = problems.map(|problem| DoctorFinding::degraded(WHAT, problem.clone(), fix));
    let found = format!("{} in [secrets]", read.len());
    let exposed = check_permissions(&sources.files(), config.secrets.directory.as_deref());
    broken.chain(exposed).chain([DoctorFinding::ok(WHAT, found)]).collect()
}

/// Names the files that every user of the host can read.
fn check_permissions(files: &[PathBuf], directory: Option<&Path>) -> Vec<DoctorFinding> {
    let finding = |file: &PathBuf| {
        let shown = file.display();
        // Closing the directory closes all of its files, also those to come.
        let fix = match directory.filter(|directory| file.starts_with(directory)) {
            Some(directory) => format!("chmod 700 {}", directory.display()),
            None => format!("chmod 600 {shown}"),
        };
        DoctorFinding::degraded(WHAT, format!("{shown} can be read by every user"), fix)
    };
    files.iter().filter(|file| is_readable_by_others(file)).map(finding).collect()
}

/// Whether a file and all directories above it are open to every user.
fn is_readable_by_others(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let has = |path: &Path, permission: u32| {
        fs::metadata(path).is_ok_and(|file| file.permissions().mode() & permission != 0)
    };
    has(&path, OTHERS_READ) && path.ancestors().skip(1).all(|above| has(above, OTHERS_SEARCH))
}

#[cfg(test)]
mod tests {
    use super::{super::FindingState, *};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn files_that_every_user_can_read_are_named_with_the_command_that_closes_them() {
        let top = tempfile::tempdir().expect("a directory");
        set_mode(top.path(), 0o755);
        let (file, directory) = (top.path().join("secrets.toml"), top.path().join("mounted"));
        fs::write(&file, "one = \"1\"\n").expect("written");
        fs::create_dir(&directory).expect("made");
        fs::write(directory.join("two"), "2").expect("written");
        let text = format!("[secrets]\nfile = {file:?}\ndirectory = {directory:?}");
        let config: AgentConfig = toml::from_str(&text).expect("TOML");
        let fixes = || -> Vec<String> {
            let findings = check_secrets(&config).into_iter();
            let degraded = findings.filter(|finding| finding.state == FindingState::Degraded);
            degraded.filter_map(|finding| finding.fix).collect()
        };
        set_mode(&file, 0o644);
        set_mode(&directory, 0o755);
        set_mode(&directory.join("two"), 0o644);
        let (close_file, close_directory) =
            (format!("chmod 600 {}", file.display()), format!("chmod 700 {}", directory.display()));
        assert_eq!(fixes(), [close_file.clone(), close_directory]);
        set_mode(&directory, 0o700);
        assert_eq!(fixes(), [close_file]);
        set_mode(&file, 0o640);
        assert_eq!(fixes(), [""; 0]);
    }
}
