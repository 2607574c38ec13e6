//! The sandboxes in the file of `-f`, as JSON.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;

use super::cli_failure::CliFailure;
use crate::policy::{SandboxSpec, parse_manifest};

/// The option `-f`.
#[derive(Args)]
pub(super) struct SandboxFile {
    /// Sandboxes as one JSON object, an array, or JSON lines; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub path: PathBuf,
}

impl SandboxFile {
    /// Reads the sandboxes in the file.
    pub(super) fn read(&self) -> Result<Vec<SandboxSpec>, CliFailure> {
        read_sandboxes(&self.path)
    }
}

/// Reads the sandboxes in a file.
pub(super) fn read_sandboxes(path: &Path) -> Result<Vec<SandboxSpec>, CliFailure> {
    let text = read_text(path).map_err(CliFailure::BadInput)?;
    let name = match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    };
    parse_manifest(&text)
        .map_err(|invalid| CliFailure::BadInput(anyhow::anyhow!("{name}: {invalid}")))
}

/// Reads a file, or standard input for `-`.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).context("cannot read the standard input")?;
    Ok(text)
}
