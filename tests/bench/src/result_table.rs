//! Results as Markdown tables.

use std::fmt;

use comfy_table::{CellAlignment, Table as Grid, presets::ASCII_MARKDOWN};

/// A table of results.
pub(crate) struct ResultTable {
    title: String,
    grid: Grid,
}

impl ResultTable {
    /// Creates an empty table.
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(ASCII_MARKDOWN).set_header(columns);
        for column in grid.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Self { title: title.to_owned(), grid }
    }

    /// Adds a row.
    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.grid.add_row(cells);
    }
}

impl fmt::Display for ResultTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "### {}\n\n{}\n", self.title, self.grid)
    }
}

/// Formats a target that is an upper limit.
pub(crate) fn at_most_target(value: f64, limit: f64, unit: &str) -> String {
    format!("≤ {limit} {unit}: {}", met_label(value <= limit))
}

/// Formats a target that is a lower limit.
pub(crate) fn at_least_target(value: f64, limit: f64, unit: &str) -> String {
    format!("≥ {limit}{unit}: {}", met_label(value >= limit))
}

/// Describes whether a target is met.
pub(crate) fn met_label(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}
