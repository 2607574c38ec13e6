//! Parses lists in a configuration, limits their length, and reports errors with the index of the
//! entry.

use super::ValidationError;

/// Maximum number of entries in a list.
pub const MAX_LIST_ENTRIES: usize = 100_000;

/// Parses every entry of a list. The error refers to the first invalid one.
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

/// Rejects a list that is too long. The error contains the limit.
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
