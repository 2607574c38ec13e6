//! Lists in a configuration: their limits, and errors that name the entry.

use super::ValidationError;

/// Entries that a list may have.
pub const MAX_LIST_ENTRIES: usize = 100_000;

/// Reads every entry of a list; the error names the first that cannot be read.
pub(super) fn parse_entries<T>(
    field: &str,
    entries: &[String],
    read: fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ValidationError> {
    check_length(field, entries.len(), MAX_LIST_ENTRIES)?;
    let read = |(index, entry): (usize, &String)| {
        read(entry).map_err(|problem| {
            ValidationError::about_entry(format!("{field}[{index}]"), entry, problem)
        })
    };
    entries.iter().enumerate().map(read).collect()
}

/// Refuses a list that is too long; the error names the limit.
pub(super) fn check_length(
    field: &str,
    entries: usize,
    limit: usize,
) -> Result<(), ValidationError> {
    if entries <= limit {
        return Ok(());
    }
    Err(ValidationError::about_field(field, format!("has {entries} entries; the limit is {limit}")))
}
