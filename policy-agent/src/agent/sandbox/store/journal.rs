//! The journal of the state files: what has changed since they were last known to be on disk.
//!
//! A change is one write to the journal and one wait for the disk, however many sandboxes it
//! concerns. The state files themselves are replaced without waiting. If the agent ends, they are
//! complete, because the kernel has them. If the host crashes, they may not be, and the next agent
//! writes them again from the journal. It knows that by the kernel's boot ID in the first line:
//!
//! ```text
//! policy-agent journal 1 8c2b1e0a-…        journal-1, the oldest
//! 3f9a0c5e22d1b764 web {"version":1,…      digest, sandbox, and its new state file
//! 90be11f0347ac6d2 web                     its file was removed
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::unistd::syncfs;
use sha2::{Digest as _, Sha256};

use crate::hex::HexDisplay;

const NAME_PREFIX: &str = "journal-";
const HEADER: &str = "policy-agent journal 1";
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";
/// The size in bytes at which a new journal is started and the old one is retired.
const MAX_BYTES: u64 = 8 << 20;
/// Length of a digest in bytes.
const DIGEST_BYTES: usize = 8;

/// A change of one state file: the sandbox's ID, and the new contents. `None` if it is removed.
pub(super) type JournalEntry<'a> = (&'a str, Option<&'a [u8]>);

/// State files that a crash of the host may have damaged: their contents by sandbox.
pub(super) type LostChanges = BTreeMap<String, Option<Vec<u8>>>;

/// The journals of a directory of state files.
#[derive(Debug)]
pub(super) struct StateJournal {
    directory: PathBuf,
    current: Option<CurrentJournal>,
}

/// It is not kept open, so that its file system can be mounted read-only.
#[derive(Debug)]
struct CurrentJournal {
    path: PathBuf,
    bytes: u64,
}

impl StateJournal {
    /// The journals in this directory. Creates none until something is appended.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, current: None }
    }

    /// Appends changes. Once this returns, they survive a crash of the host.
    pub(super) fn append(&mut self, entries: &[JournalEntry<'_>]) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            append_line(&mut lines, *entry);
        }
        // After an error its end is unknown, so the next change starts another journal.
        let (mut journal, is_new) = match self.current.take() {
            Some(journal) if journal.bytes < MAX_BYTES => (journal, false),
            _ => (self.create_next()?, true),
        };
        let mut file = OpenOptions::new().append(true).open(&journal.path)?;
        file.write_all(&lines)?;
        file.sync_data()?;
        if is_new {
            File::open(&self.directory)?.sync_all()?;
        }
        journal.bytes += lines.len() as u64;
        self.current = Some(journal);
        Ok(())
    }

    /// Starts the next journal, and retires the earlier ones once their state files are on disk.
    fn create_next(&self) -> io::Result<CurrentJournal> {
        let journals = list_journals(&self.directory)?;
        let number = journals.last().map_or(1, |(last, _)| last + 1);
        let path = self.directory.join(format!("{NAME_PREFIX}{number}"));
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(format!("{HEADER} {}\n", boot_id()).as_bytes())?;
        if !journals.is_empty() {
            let directory = self.directory.clone();
            let retire = move || {
                if let Err(error) = sync_and_remove(&directory, &journals) {
                    tracing::warn!("cannot retire the journal of the state files: {error}");
                }
            };
            thread::Builder::new().name("state-sync".to_owned()).spawn(retire)?;
        }
        Ok(CurrentJournal { path, bytes: 0 })
    }

    /// Waits until all state files are on disk, and removes the journals.
    pub(super) fn retire_all(&mut self) -> io::Result<()> {
        self.current = None;
        sync_and_remove(&self.directory, &list_journals(&self.directory)?)
    }

    /// Returns the changes whose state files may be damaged, because the host has crashed since.
    /// Empty if it has not.
    pub(super) fn read_lost_changes(&self) -> io::Result<LostChanges> {
        let mut texts = Vec::new();
        for (_, path) in list_journals(&self.directory)? {
            texts.push(fs::read(path)?);
        }
        let this_boot = format!("{HEADER} {}\n", boot_id());
        let is_intact = boot_id().is_empty().then_some(false);
        let is_intact = is_intact
            .unwrap_or_else(|| texts.iter().all(|text| text.starts_with(this_boot.as_bytes())));
        let mut lost = LostChanges::new();
        if !is_intact {
            texts.iter().for_each(|text| lost.extend(parse_journal(text)));
        }
        Ok(lost)
    }
}

fn append_line(lines: &mut Vec<u8>, (id, text): JournalEntry<'_>) {
    let mut body = id.as_bytes().to_vec();
    body.push(b' ');
    body.extend_from_slice(text.unwrap_or_default());
    lines.extend_from_slice(line_digest(&body).as_bytes());
    lines.push(b' ');
    lines.append(&mut body);
    lines.push(b'\n');
}

/// Parses a journal up to its first damaged line, at which the host crashed.
fn parse_journal(text: &[u8]) -> LostChanges {
    let mut changes = LostChanges::new();
    for line in text.split_inclusive(|byte| *byte == b'\n').skip(1) {
        let Some((id, file)) = parse_line(line) else { break };
        changes.insert(id, file);
    }
    changes
}

fn parse_line(line: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let line = line.strip_suffix(b"\n")?;
    let (digest, rest) = line.split_at_checked(2 * DIGEST_BYTES)?;
    let body = rest.strip_prefix(b" ")?;
    if digest != line_digest(body).as_bytes() {
        return None;
    }
    let space = body.iter().position(|byte| *byte == b' ')?;
    let id = String::from_utf8(body[..space].to_owned()).ok()?;
    let file = &body[space + 1..];
    Some((id, (!file.is_empty()).then(|| file.to_owned())))
}

fn line_digest(body: &[u8]) -> String {
    HexDisplay(&Sha256::digest(body)[..DIGEST_BYTES]).to_string()
}

/// Returns the journals, the oldest first.
fn list_journals(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(NAME_PREFIX)?.parse().ok());
        journals.extend(number.map(|number: u64| (number, entry.path())));
    }
    journals.sort();
    Ok(journals)
}

/// Waits until everything in the file system of this directory is on disk.
pub(super) fn sync_file_system(directory: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(directory)?)?)
}

fn sync_and_remove(directory: &Path, journals: &[(u64, PathBuf)]) -> io::Result<()> {
    sync_file_system(directory)?;
    for (_, journal) in journals {
        match fs::remove_file(journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(directory)?.sync_all()
}

/// The ID of this boot of the kernel. Empty if the kernel does not tell.
fn boot_id() -> String {
    fs::read_to_string(BOOT_ID_PATH).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal_of(entries: &[JournalEntry<'_>]) -> Vec<u8> {
        let mut text = format!("{HEADER} of-another-boot\n").into_bytes();
        entries.iter().for_each(|entry| append_line(&mut text, *entry));
        text
    }

    #[test]
    fn the_last_change_of_each_sandbox_counts() {
        let entries: [JournalEntry<'_>; 4] =
            [("a", Some(b"1")), ("b", Some(b"2 {}")), ("a", None), ("b", Some(b"3"))];
        let changes = parse_journal(&journal_of(&entries));
        let expected = [("a".to_owned(), None), ("b".to_owned(), Some(b"3".to_vec()))];
        assert_eq!(changes, LostChanges::from(expected));
    }

    #[test]
    fn a_journal_counts_up_to_where_it_is_damaged() {
        let whole = journal_of(&[("a", Some(b"1")), ("b", Some(b"2"))]);
        let last = journal_of(&[("a", Some(b"1"))]).len();
        for length in 0..whole.len() {
            let changes = parse_journal(&whole[..length]);
            assert_eq!(changes.contains_key("a"), length >= last, "{length}");
            assert!(!changes.contains_key("b"), "{length}");
        }
        for position in last..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            assert!(!parse_journal(&damaged).contains_key("b"), "{position}");
        }
    }

    #[test]
    fn a_full_journal_is_retired() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut journal = StateJournal::new(directory.path().to_owned());
        journal.append(&[("a", Some(b"1"))]).expect("appended");
        let current = journal.current.as_mut().expect("a journal");
        current.bytes = MAX_BYTES;
        journal.append(&[("a", Some(b"2"))]).expect("appended");
        let names = || list_journals(directory.path()).expect("a list");
        assert!(names().iter().any(|(number, _)| *number == 2));
        journal.retire_all().expect("retired");
        assert!(names().is_empty());
    }
}
