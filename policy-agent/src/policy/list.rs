//! Lists in a configuration: their limits, and errors that name the entry.

use super::Invalid;

/// Entries that a list may have.
pub const MAX_ENTRIES: usize = 100_000;

/// Reads every entry of a list; the error names the first that cannot be read.
pub(super) fn read<T>(
    field: &str,
    entries: &[String],
    read: fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Invalid> {
    limit(field, entries.len(), MAX_ENTRIES)?;
    let read = |(index, entry): (usize, &String)| {
        read(entry).map_err(|problem| Invalid::entry(format!("{field}[{index}]"), entry, problem))
    };
    entries.iter().enumerate().map(read).collect()
}

/// Refuses a list that is too long; the error names the limit.
pub(super) fn limit(field: &str, entries: usize, limit: usize) -> Result<(), Invalid> {
    if entries <= limit {
        return Ok(());
    }
    Err(Invalid::field(field, format!("has {entries} entries; the limit is {limit}")))
}
