//! Results as tables, in Markdown, so that they can be kept.

use std::fmt;

use comfy_table::{CellAlignment, Table as Grid, presets::ASCII_MARKDOWN};

/// A table of results.
pub(crate) struct ResultTable {
    title: String,
    grid: Grid,
}

impl ResultTable {
    /// An empty table.
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

/// A target that is a limit from above.
pub(crate) fn at_most_target(value: f64, limit: f64, unit: &str) -> String {
    format!("≤ {limit} {unit}: {}", met_label(value <= limit))
}

/// A target that is a limit from below.
pub(crate) fn at_least_target(value: f64, limit: f64, unit: &str) -> String {
    format!("≥ {limit}{unit}: {}", met_label(value >= limit))
}

/// Whether a target is met, in a word.
pub(crate) fn met_label(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}
