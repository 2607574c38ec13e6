//! The `man` command.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::{CliArgs, cli_failure::CliFailure};

/// Write the manual pages to a directory
///
/// Writes a page for each command. Packages install them.
#[derive(Args)]
pub(super) struct ManCommand {
    /// The directory, which is created if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl ManCommand {
    pub(super) fn run(self) -> Result<(), CliFailure> {
        let directory = &self.directory;
        let written = fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(CliArgs::command(), directory));
        let context = || format!("cannot write the pages to {}", directory.display());
        Ok(written.with_context(context)?)
    }
}
