//! The file of one sandbox: its format, and how it is replaced as a whole.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Result, anyhow, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use super::SandboxRecord;
use crate::{
    agent::sandbox::lifetime::PersistedLifetime, dataplane::Slot, policy::SandboxSpec,
    private_file::NEW_EXTENSION,
};

/// Version of the file format. Files with another version, such as those of a newer agent, are
/// rejected.
const FILE_VERSION: u32 = 1;

#[derive(Deserialize)]
struct StateFile {
    version: u32,
    slot: Slot,
    sandbox: SandboxSpec,
    #[serde(flatten)]
    lifetime: PersistedLifetime,
}

#[derive(Serialize)]
struct StateFileRef<'a> {
    version: u32,
    slot: Slot,
    sandbox: serde_json::Value,
    #[serde(flatten)]
    lifetime: &'a PersistedLifetime,
}

/// The contents of the file of a sandbox, in one line.
pub(super) fn serialize_record(record: &SandboxRecord) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&StateFileRef {
        version: FILE_VERSION,
        slot: record.slot,
        sandbox: record.spec.to_json_with_secrets()?,
        lifetime: &record.lifetime,
    })?)
}

/// Parses the contents of the file at `path`.
pub(super) fn parse_record(path: &Path, text: &[u8]) -> Result<SandboxRecord> {
    let StateFile { version, slot, sandbox, lifetime } =
        serde_json::from_slice(text).map_err(redacted_error)?;
    if version != FILE_VERSION {
        bail!("it has version {version}, and this agent reads version {FILE_VERSION}");
    }
    let file_name_id = path.file_stem().and_then(|name| name.to_str());
    if file_name_id != Some(sandbox.sandbox_id.as_str()) {
        bail!("it holds sandbox {}, which its name contradicts", sandbox.sandbox_id);
    }
    Ok(SandboxRecord { slot, spec: sandbox, lifetime })
}

/// Describes what is wrong with a file without quoting it: the file contains secrets, and the error
/// is logged.
fn redacted_error(error: serde_json::Error) -> anyhow::Error {
    match error.classify() {
        Category::Data => {
            let (line, column) = (error.line(), error.column());
            anyhow!("it is not what an agent writes, at line {line}, column {column}")
        }
        _ => error.into(),
    }
}

/// Writes a file beside `path` that can take its place. Does not wait for the disk.
pub(super) fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path.with_extension(NEW_EXTENSION))?.write_all(text)
}

/// Puts the new file in the place of `path`. Does not wait for the disk.
///
/// Exchanges the two where it can: a rename over an existing file makes ext4 start writing the new
/// one, which takes ten times as long.
pub(super) fn replace_with_new(path: &Path) -> io::Result<()> {
    let new = path.with_extension(NEW_EXTENSION);
    match renameat_with(CWD, &new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => fs::remove_file(new),
        Err(_) => fs::rename(new, path),
    }
}

/// Removes the new file, if there is one.
pub(super) fn discard_new(path: &Path) {
    let _ = fs::remove_file(path.with_extension(NEW_EXTENSION));
}
