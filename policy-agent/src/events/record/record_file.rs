//! The files of the record: JSON lines in `state_dir/record`, each line one entry as it was at that
//! time. Of several lines about the same destination, the last one counts.
//!
//! A file begins with all entries, so only the newest is read at the start. The older ones are kept
//! for programs that ship them, up to a number and an age.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};

use super::{FlowQuery, FlowRecord, RecordedFlow};

/// Bytes appended to a file before the next one begins.
const MAX_APPENDED_BYTES: u64 = 16 * 1024 * 1024;
/// The age at which the next file begins.
const MAX_FILE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Number of files that are kept, including the current one.
const MAX_FILES: usize = 4;
/// The age at which an older file is removed.
const MAX_KEPT_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The current file, and its directory.
#[derive(Debug)]
pub struct RecordFile {
    directory: PathBuf,
    /// `None` until something is written.
    file: Option<File>,
    appended: u64,
    begun: SystemTime,
}

impl RecordFile {
    /// The files in `state_dir`. Their directory is created when something is written.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        let directory = record_directory(state_dir);
        Self { directory, file: None, appended: 0, begun: SystemTime::now() }
    }

    /// Reads the entries of the newest file into the record. Skips lines that are no entries, such as
    /// one that a crash cut off. Returns how many it skipped.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load_into(&self, record: &FlowRecord) -> Result<usize> {
        let Some((_, path)) = numbered_files(&self.directory)?.pop() else { return Ok(0) };
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut skipped = 0;
        for line in BufReader::new(file).split(b'\n') {
            match serde_json::from_slice::<RecordedFlow>(&line?) {
                Ok(entry) => record.restore(entry),
                Err(_) => skipped += 1,
            }
        }
        Ok(skipped)
    }

    /// Appends entries. Begins another file if this one is large or old enough, and then writes all
    /// entries of the record.
    ///
    /// # Errors
    /// The disk reports an error. The entries are written at the next attempt, to another file.
    pub fn append(&mut self, entries: &[RecordedFlow], record: &FlowRecord) -> Result<()> {
        let is_old = self.begun.elapsed().is_ok_and(|age| age >= MAX_FILE_AGE);
        let written = match &mut self.file {
            Some(file) if self.appended < MAX_APPENDED_BYTES && !is_old => {
                write_lines(file, entries).map(|bytes| self.appended += bytes)
            }
            _ => self.begin_next(record),
        };
        if written.is_err() {
            self.file = None;
        }
        written.with_context(|| format!("cannot write in {}", self.directory.display()))
    }

    /// Writes all entries to the next file. It gets its name when it is whole.
    fn begin_next(&mut self, record: &FlowRecord) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let newest = numbered_files(&self.directory)?.last().map_or(0, |(number, _)| *number);
        let path = self.directory.join(file_name(newest + 1));
        let unfinished = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&unfinished)?;
        write_lines(&mut file, &record.entries(&FlowQuery::everything()))?;
        fs::rename(&unfinished, &path)?;
        (self.file, self.appended, self.begun) = (Some(file), 0, SystemTime::now());
        self.remove_old_files()
    }

    fn remove_old_files(&self) -> io::Result<()> {
        let mut files = numbered_files(&self.directory)?;
        files.pop();
        let excess = files.len().saturating_sub(MAX_FILES - 1);
        for (place, (_, path)) in files.into_iter().enumerate() {
            let age = fs::metadata(&path)?.modified()?.elapsed();
            if place < excess || age.is_ok_and(|age| age >= MAX_KEPT_AGE) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the directory with all files.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn remove_all(state_dir: &Path) -> Result<()> {
        let directory = record_directory(state_dir);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a line per entry. Returns the number of bytes.
fn write_lines(file: &mut File, entries: &[RecordedFlow]) -> io::Result<u64> {
    let mut bytes = 0;
    let mut writer = BufWriter::new(file);
    for entry in entries {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        bytes += line.len() as u64;
        writer.write_all(&line)?;
    }
    writer.flush()?;
    Ok(bytes)
}

/// The files by number, the newest last. None if there is no directory.
fn numbered_files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("flows-")?.strip_suffix(".jsonl"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn file_name(number: u64) -> String {
    format!("flows-{number:06}.jsonl")
}

fn record_directory(state_dir: &Path) -> PathBuf {
    state_dir.join("record")
}

#[cfg(test)]
mod tests;
