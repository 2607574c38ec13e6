//! What the demo prints.

#![expect(clippy::print_stdout, reason = "a demo prints")]

use anyhow::Result;
use comfy_table::{ColumnConstraint::LowerBoundary, Table, Width::Fixed, presets};
use serde_json::Value;

use crate::{agent::Agent, probe::Seen};

/// Lines of an output that are shown; the rest is counted.
const MOST_LINES: usize = 24;

/// Least widths of a table's columns.
const WIDTHS: [u16; 6] = [3, 9, 31, 12, 12, 20];

/// A row of a table.
pub(super) struct Line {
    pub sandbox: &'static str,
    pub destination: String,
    pub expected: Seen,
    pub seen: Seen,
    pub reason: String,
    /// Whether `explain` says what was expected.
    pub agrees: bool,
}

impl Line {
    fn is_as_expected(&self) -> bool {
        self.expected == self.seen && self.agrees
    }
}

/// How many rows there were, and how many of them as expected.
#[derive(Default)]
pub(super) struct Tally {
    pub rows: usize,
    pub as_expected: usize,
}

/// What comes next.
pub(super) fn heading(text: &str) {
    println!("\n── {text}");
}

/// What a sandbox was given.
pub(super) fn applied(sandbox: &str, config: &Value) {
    println!("   {sandbox} ← {config}");
}

/// The attempts of an act.
pub(super) fn table(lines: &[Line], tally: &mut Tally) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if tally.rows == 0 {
        table.set_header(["", "SANDBOX", "DESTINATION", "EXPECTED", "SEEN", "LINE, REASON, RULE"]);
    }
    for line in lines {
        let mark = if line.is_as_expected() { "✓" } else { "✗" };
        table.add_row([
            mark,
            line.sandbox,
            &line.destination,
            &line.expected.to_string(),
            &line.seen.to_string(),
            &line.reason,
        ]);
    }
    tally.rows += lines.len();
    tally.as_expected += lines.iter().filter(|line| line.is_as_expected()).count();
    // The same widths in every act, so that all of them look like one table.
    table.set_constraints(WIDTHS.map(|width| LowerBoundary(Fixed(width))));
    println!("{}", table.trim_fmt());
}

/// What the agent's commands show after all this.
pub(super) fn commands(agent: &Agent) -> Result<()> {
    let commands: [&[&str]; 6] = [
        &["get"],
        &["get", "alpha"],
        &["explain", "alpha", "203.0.113.10", "--port", "443"],
        &["explain", "alpha", "1.1.1.1", "--port", "443"],
        &["explain", "beta", "198.51.100.23", "--port", "443", "--host", "img.cdn.example"],
        &["events", "--sandbox", "beta"],
    ];
    for arguments in commands {
        heading(&format!("$ policy-agent {}", arguments.join(" ")));
        let ran = agent.cli(arguments)?;
        let text = format!("{}{}", ran.stdout, ran.stderr);
        for line in text.lines().take(MOST_LINES) {
            println!("{line}");
        }
        let more = text.lines().count().saturating_sub(MOST_LINES);
        if more > 0 {
            println!("… {more} lines more");
        }
        if ran.code != 0 {
            println!("(exit status {})", ran.code);
        }
    }
    Ok(())
}

/// The last line.
pub(super) fn total(tally: &Tally) {
    let Tally { rows, as_expected } = tally;
    let mark = if rows == as_expected { "✓" } else { "✗" };
    println!("\n{mark} {as_expected} of {rows} rows as expected");
}
