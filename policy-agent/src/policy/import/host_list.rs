//! Lists of hosts: an entry per line, or several with commas or spaces between them; `#` begins a
//! comment.

use super::ImportedPolicy;

pub(super) fn read(text: &str) -> ImportedPolicy {
    let mut policy = ImportedPolicy::default();
    for entry in entries(text) {
        policy.allow(entry);
        // Squid's form for a name and all below it.
        if let Some(apex) = entry.strip_prefix('.') {
            policy.allow(apex);
        }
    }
    policy.deny_everything_else()
}

/// The entries of a list, without comments.
pub(super) fn entries(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(before, _)| before));
    let words = lines.flat_map(|line| line.split([',', ';', ' ', '\t', '"', '\'']));
    words
        .map(|word| word.trim_start_matches("- ").trim())
        .filter(|word| !word.is_empty() && *word != "-")
}
