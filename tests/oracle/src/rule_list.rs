//! A list of rules, of which the longest decides.

use crate::{policy_reader, prefix::OraclePrefix};

/// The prefixes of a list in their order. A domain takes a place but matches no address.
pub(crate) struct RuleList {
    name: &'static str,
    /// Whether events show the index of an entry.
    is_numbered: bool,
    entries: Vec<Option<OraclePrefix>>,
}

/// An entry that matches.
pub(crate) struct MatchingRule {
    /// The number of bits that match.
    pub length: u8,
    /// The rule as events and `explain` show it.
    pub shown: String,
}

impl RuleList {
    pub(crate) fn read(name: &'static str, entries: &[impl AsRef<str>]) -> Self {
        let entries = entries.iter().map(|entry| policy_reader::read_entry(entry.as_ref()));
        Self { name, is_numbered: true, entries: entries.collect() }
    }

    /// Reads a list that is not one of the configuration.
    pub(crate) fn read_unnumbered(name: &'static str, entries: &[impl AsRef<str>]) -> Self {
        Self { is_numbered: false, ..Self::read(name, entries) }
    }

    /// Returns the entry of which most bits match, and of equal ones the first.
    pub(crate) fn longest(
        &self,
        matched_bits: impl Fn(OraclePrefix) -> Option<u8>,
    ) -> Option<MatchingRule> {
        let mut best: Option<(u8, usize, OraclePrefix)> = None;
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(prefix) = *entry else { continue };
            let Some(length) = matched_bits(prefix) else { continue };
            if best.is_none_or(|(longest, ..)| length > longest) {
                best = Some((length, index, prefix));
            }
        }
        let (length, index, prefix) = best?;
        let name = self.name;
        let shown = match self.is_numbered {
            true => format!("{name}[{index}]: {prefix}"),
            false => format!("{name}: {prefix}"),
        };
        Some(MatchingRule { length, shown })
    }

    pub(crate) fn prefixes(&self) -> impl Iterator<Item = OraclePrefix> {
        self.entries.iter().flatten().copied()
    }

    /// Keeps the prefixes that the predicate selects, those of IPv4 first.
    pub(crate) fn retain_and_sort(&mut self, keep: impl Fn(OraclePrefix) -> bool) {
        self.entries.retain(|entry| entry.is_some_and(&keep));
        self.entries.sort_by_key(|entry| entry.is_some_and(OraclePrefix::is_v6));
    }
}
