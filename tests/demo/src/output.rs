//! The output of the demo.

#![expect(clippy::print_stdout, reason = "a demo prints")]

use anyhow::Result;
use comfy_table::{ColumnConstraint::LowerBoundary, Table, Width::Fixed, presets};
use serde_json::Value;

use policy_testbed::{agent::AgentProcess, probe::ProbeResult};

/// The number of lines of an output to print. The rest is counted.
const MAX_OUTPUT_LINES: usize = 24;

/// The minimum widths of a table's columns.
const COLUMN_WIDTHS: [u16; 6] = [3, 9, 31, 12, 12, 20];

/// A row of a table.
pub(crate) struct ResultRow {
    pub(crate) sandbox: &'static str,
    pub(crate) destination: String,
    pub(crate) expected: ProbeResult,
    pub(crate) result: ProbeResult,
    pub(crate) reason: String,
    /// Whether `explain` gives the expected result.
    pub(crate) explain_agrees: bool,
}

impl ResultRow {
    fn is_as_expected(&self) -> bool {
        self.expected == self.result && self.explain_agrees
    }
}

/// The number of rows, and how many were as expected.
#[derive(Default)]
pub(crate) struct DemoSummary {
    pub(crate) rows: usize,
    pub(crate) as_expected: usize,
}

/// Prints the heading of the next step.
pub(crate) fn print_heading(text: &str) {
    println!("\n── {text}");
}

/// Prints the configuration applied to a sandbox.
pub(crate) fn print_applied(sandbox: &str, config: &Value) {
    println!("   {sandbox} ← {config}");
}

/// Prints a line that is not part of a table.
pub(crate) fn print_line(text: &str) {
    println!("   {text}");
}

/// Prints the attempts of a step.
pub(crate) fn print_table(lines: &[ResultRow], tally: &mut DemoSummary) {
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
            &line.result.to_string(),
            &line.reason,
        ]);
    }
    tally.rows += lines.len();
    tally.as_expected += lines.iter().filter(|line| line.is_as_expected()).count();
    // The same widths in every step, so that all tables look alike.
    table.set_constraints(COLUMN_WIDTHS.map(|width| LowerBoundary(Fixed(width))));
    println!("{}", table.trim_fmt());
}

/// Prints the output of the agent's commands at the end.
pub(crate) fn print_commands(agent: &AgentProcess) -> Result<()> {
    let commands: [&[&str]; 6] = [
        &["get"],
        &["get", "alpha"],
        &["explain", "alpha", "203.0.113.10", "--port", "443"],
        &["explain", "alpha", "1.1.1.1", "--port", "443"],
        &["explain", "beta", "198.51.100.23", "--port", "443", "--host", "img.cdn.example"],
        &["events", "--sandbox", "beta"],
    ];
    for arguments in commands {
        print_heading(&format!("$ policy-agent {}", arguments.join(" ")));
        let ran = agent.cli(arguments)?;
        let text = format!("{}{}", ran.stdout, ran.stderr);
        for line in text.lines().take(MAX_OUTPUT_LINES) {
            println!("{line}");
        }
        let more = text.lines().count().saturating_sub(MAX_OUTPUT_LINES);
        if more > 0 {
            println!("… {more} lines more");
        }
        if ran.exit_code != 0 {
            println!("(exit status {})", ran.exit_code);
        }
    }
    Ok(())
}

/// Prints the last line.
pub(crate) fn print_total(tally: &DemoSummary) {
    let DemoSummary { rows, as_expected } = tally;
    let mark = if rows == as_expected { "✓" } else { "✗" };
    println!("\n{mark} {as_expected} of {rows} rows as expected");
}
