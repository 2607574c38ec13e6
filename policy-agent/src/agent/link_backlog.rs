//! Links that have changed and that the agent has not looked at yet. However many events arrive,
//! each name is kept once, and looked at again only after an interval.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// The least time between two looks at one interface.
const LEAST_INTERVAL: Duration = Duration::from_millis(25);
/// The least time between two looks at all interfaces.
const LEAST_FULL_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of names. With more, all interfaces are looked at.
const MAX_NAMES: usize = 4096;

/// Names in order of their text, with the times at which they may be looked at.
#[derive(Default)]
pub(super) struct LinkBacklog {
    waiting: BTreeSet<String>,
    /// When names were taken, within the last interval.
    taken: HashMap<String, Instant>,
    /// Whether events were lost, so that every interface may have changed.
    is_incomplete: bool,
    all_taken: Option<Instant>,
}

/// The interfaces to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChangedLinks {
    /// Those with these names.
    Named(BTreeSet<String>),
    /// All, because events were lost.
    All,
}

impl LinkBacklog {
    /// Adds names. Returns whether one of them was not waiting yet.
    pub(super) fn add(&mut self, names: impl IntoIterator<Item = String>) -> bool {
        let before = self.waiting.len();
        self.waiting.extend(names);
        let is_longer = self.waiting.len() > before;
        if self.waiting.len() > MAX_NAMES {
            self.add_unknown();
        }
        is_longer
    }

    /// Notes that events were lost.
    pub(super) fn add_unknown(&mut self) {
        self.waiting.clear();
        self.is_incomplete = true;
    }

    /// Takes the interfaces that may be looked at now. `None` if there are none.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<ChangedLinks> {
        self.taken.retain(|_, taken| *taken + LEAST_INTERVAL > now);
        if self.is_incomplete && self.all_due().is_none_or(|due| due <= now) {
            self.waiting.clear();
            (self.is_incomplete, self.all_taken) = (false, Some(now));
            return Some(ChangedLinks::All);
        }
        let (held, due): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|name| self.taken.contains_key(name));
        self.waiting = held;
        if due.is_empty() {
            return None;
        }
        self.taken.extend(due.iter().map(|name| (name.clone(), now)));
        Some(ChangedLinks::Named(due))
    }

    /// When the next interface may be looked at. `None` if none waits.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let named = self.waiting.iter().filter_map(|name| self.taken.get(name));
        let named = named.map(|taken| *taken + LEAST_INTERVAL).min();
        let all = if self.is_incomplete { self.all_due() } else { None };
        [named, all].into_iter().flatten().min()
    }

    fn all_due(&self) -> Option<Instant> {
        Some(self.all_taken? + LEAST_FULL_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> impl IntoIterator<Item = String> {
        names.map(str::to_owned)
    }

    fn named<const N: usize>(given: [&str; N]) -> Option<ChangedLinks> {
        Some(ChangedLinks::Named(names(given).into_iter().collect()))
    }

    #[test]
    fn a_name_waits_once() {
        let mut backlog = LinkBacklog::default();
        assert!(backlog.add(names(["tap1", "tap0"])));
        assert!(!backlog.add(names(["tap0"])));
        let now = Instant::now();
        assert_eq!(backlog.take_due(now), named(["tap0", "tap1"]));
        assert_eq!((backlog.take_due(now), backlog.next_due()), (None, None));
    }

    #[test]
    fn a_name_is_not_due_again_before_its_interval_and_delays_no_other() {
        let (mut backlog, begin) = (LinkBacklog::default(), Instant::now());
        backlog.add(names(["tap0"]));
        assert_eq!(backlog.take_due(begin), named(["tap0"]));
        backlog.add(names(["tap0", "tap1"]));
        assert_eq!(backlog.take_due(begin), named(["tap1"]));
        assert_eq!(backlog.next_due(), Some(begin + LEAST_INTERVAL));
        assert_eq!(backlog.take_due(begin + LEAST_INTERVAL), named(["tap0"]));
    }

    #[test]
    fn lost_events_lead_to_one_look_at_everything() {
        let (mut backlog, begin) = (LinkBacklog::default(), Instant::now());
        backlog.add(names(["tap0"]));
        backlog.add_unknown();
        backlog.add_unknown();
        assert_eq!(backlog.take_due(begin), Some(ChangedLinks::All));
        assert_eq!((backlog.take_due(begin), backlog.next_due()), (None, None));
        backlog.add_unknown();
        assert_eq!(backlog.take_due(begin), None);
        assert_eq!(backlog.next_due(), Some(begin + LEAST_FULL_INTERVAL));
        backlog.add(names(["tap0"]));
        assert_eq!(backlog.take_due(begin), named(["tap0"]), "named ones do not wait for it");
        assert_eq!(backlog.take_due(begin + LEAST_FULL_INTERVAL), Some(ChangedLinks::All));
    }

    #[test]
    fn names_do_not_pile_up() {
        let mut backlog = LinkBacklog::default();
        for number in 0..3 * MAX_NAMES {
            backlog.add([format!("tap{number}")]);
            assert!(backlog.waiting.len() <= MAX_NAMES);
        }
        assert_eq!(backlog.take_due(Instant::now()), Some(ChangedLinks::All));
    }
}
