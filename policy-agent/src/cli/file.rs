//! The file of `-f`: sandboxes as JSON.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;

use super::failure::Failure;
use crate::policy::{SandboxSpec, read};

/// `-f`
#[derive(Args)]
pub struct SandboxFile {
    /// Sandboxes: one JSON object, an array, or JSON lines; - is the standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub path: PathBuf,
}

impl SandboxFile {
    /// The sandboxes in the file.
    pub fn read(&self) -> Result<Vec<SandboxSpec>, Failure> {
        sandboxes(&self.path)
    }
}

/// The sandboxes in a file.
pub fn sandboxes(path: &Path) -> Result<Vec<SandboxSpec>, Failure> {
    let text = text(path).map_err(Failure::BadInput)?;
    let name = match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    };
    read(&text).map_err(|invalid| Failure::BadInput(anyhow::anyhow!("{name}: {invalid}")))
}

fn text(path: &Path) -> anyhow::Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).context("cannot read the standard input")?;
    Ok(text)
}
