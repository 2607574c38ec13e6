//! Output of commands: tables for people, JSON for programs.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::cli_failure::CliFailure;

/// The option `-o`.
#[derive(Args, Clone, Copy)]
pub(super) struct OutputArgs {
    /// Output format
    #[arg(short = 'o', long = "output", value_name = "FORM", default_value = "table")]
    pub format: OutputFormat,
}

/// The output format of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Prints a line.
pub(super) fn print_line(text: impl std::fmt::Display) -> Result<(), CliFailure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints a note to stderr. A note does not affect the exit status.
pub(super) fn print_note(kind: &str, text: impl std::fmt::Display) {
    // A failed write to stderr cannot be reported anywhere.
    let _ = writeln!(io::stderr().lock(), "{kind}: {text}");
}

/// Prints indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliFailure> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    Ok(writeln!(stdout)?)
}

/// Creates a table with these headings. Its width does not depend on the terminal.
pub(super) fn new_table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    table
}

/// Prints a table without trailing spaces.
pub(super) fn print_table(table: &Table) -> Result<(), CliFailure> {
    let text = table.to_string();
    text.lines().try_for_each(|row| print_line(row.strip_prefix(' ').unwrap_or(row).trim_end()))
}
