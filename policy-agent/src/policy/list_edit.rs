//! Changes of one list of a sandbox: `allow` and `deny`, also for a limited time.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Floor, Policy, SandboxSpec, ValidationError,
    cidr::is_all_traffic,
    policy_warnings::ClosedPrefixes,
    sandbox_policy::{AllowOutEntry, parse_allow_out_entry, parse_deny_out_entry},
};

/// Maximum number of entries that hold for a limited time, per sandbox.
const MAX_TEMPORARY_ENTRIES: usize = 1000;

/// A list that `allow` and `deny` change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum EditableList {
    /// `network.allowOut`
    AllowOut,
    /// `network.denyOut`
    DenyOut,
}

/// An entry that ends at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemporaryEntry {
    /// The list that has it.
    pub list: EditableList,
    /// The entry, as it is in the list.
    pub entry: String,
    /// When the agent removes it, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// A change of one list.
#[derive(Clone, Debug)]
pub struct ListEdit {
    /// The list.
    pub list: EditableList,
    /// The entries to add or remove.
    pub entries: Vec<String>,
    /// Whether to remove the entries.
    pub remove: bool,
    /// Added entries end at this time. `None`: they stay.
    pub until: Option<Timestamp>,
}

/// What an edit changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListChange {
    /// Entries that are new in the list.
    pub added: Vec<String>,
    /// Entries that are not in the list any more.
    pub removed: Vec<String>,
    /// Entries that were in the list before. They may end at another time now.
    pub unchanged: Vec<String>,
}

/// An entry of a list, under its normal form.
#[derive(Debug, Default)]
struct KnownEntry {
    /// How the list has it, once or more often.
    spellings: Vec<String>,
    /// Whether this edit has added it.
    is_new: bool,
}

impl EditableList {
    /// The name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowOut => "allowOut",
            Self::DenyOut => "denyOut",
        }
    }

    fn entries(self, spec: &mut SandboxSpec) -> &mut Option<Vec<String>> {
        match self {
            Self::AllowOut => &mut spec.network.allow_out,
            Self::DenyOut => &mut spec.network.deny_out,
        }
    }

    /// The entries of a list by their normal forms.
    fn known_entries(self, spec: &mut SandboxSpec) -> HashMap<String, KnownEntry> {
        let mut known = HashMap::<String, KnownEntry>::new();
        for entry in self.entries(spec).iter().flatten() {
            if let Ok(normal) = self.normal_form(entry) {
                known.entry(normal).or_default().spellings.push(entry.clone());
            }
        }
        known
    }

    /// The normal form of an entry, by which entries are equal.
    fn normal_form(self, entry: &str) -> Result<String, String> {
        match self {
            Self::AllowOut => parse_allow_out_entry(entry).map(|entry| entry.to_string()),
            Self::DenyOut => parse_deny_out_entry(entry).map(|entry| entry.to_string()),
        }
    }
}

impl ListEdit {
    /// Changes the list of a sandbox.
    ///
    /// # Errors
    /// An entry is invalid, or is to be removed and not in the list. The error contains it.
    pub fn edit_spec(&self, spec: &mut SandboxSpec) -> Result<ListChange, ValidationError> {
        if self.entries.is_empty() {
            return Err(ValidationError::about_field("entries", "write at least one entry"));
        }
        let mut change = ListChange::default();
        let mut known = self.list.known_entries(spec);
        for (place, entry) in self.entries.iter().enumerate() {
            let reject =
                |problem| ValidationError::about_entry(format!("entries[{place}]"), entry, problem);
            let normal = self.list.normal_form(entry).map_err(reject)?;
            if !self.remove {
                self.add_entry(spec, entry, normal, &mut known, &mut change);
            } else if let Some(KnownEntry { spellings, .. }) = known.remove(&normal) {
                change.removed.extend(spellings);
            } else {
                let list = self.list.name();
                return Err(reject(format!("is not in {list}; `get` shows what is")));
            }
        }
        if self.remove {
            remove_entries(spec, self.list, &change.removed);
            for entry in &change.removed {
                remove_temporary(spec, self.list, entry);
            }
        }
        if spec.temporary.len() > MAX_TEMPORARY_ENTRIES {
            let problem =
                format!("a sandbox has at most {MAX_TEMPORARY_ENTRIES} temporary entries");
            return Err(ValidationError::about_field("for", problem));
        }
        Ok(change)
    }

    fn add_entry(
        &self,
        spec: &mut SandboxSpec,
        entry: &str,
        normal: String,
        known: &mut HashMap<String, KnownEntry>,
        change: &mut ListChange,
    ) {
        let (written, is_new) = match known.get(&normal) {
            Some(KnownEntry { spellings, is_new }) => {
                let written = spellings[0].clone();
                change.unchanged.push(written.clone());
                (written, *is_new)
            }
            None => {
                change.added.push(entry.to_owned());
                self.list.entries(spec).get_or_insert_default().push(entry.to_owned());
                let added = KnownEntry { spellings: vec![entry.to_owned()], is_new: true };
                known.insert(normal, added);
                (entry.to_owned(), true)
            }
        };
        let was_temporary = remove_temporary(spec, self.list, &written);
        // What was permanent stays permanent.
        if let Some(until) = self.until.filter(|_| is_new || was_temporary) {
            spec.temporary.push(TemporaryEntry { list: self.list, entry: written, until });
        }
    }

    /// Checks that what is added has an effect under the policy after the edit.
    ///
    /// # Errors
    /// The floor denies an allowed entry, or an allowed entry precedes a denied one.
    pub fn check_effect(&self, policy: &Policy, floor: &Floor) -> Result<(), ValidationError> {
        if self.remove {
            return Ok(());
        }
        let closed = ClosedPrefixes::from_floor(floor);
        for (place, entry) in self.entries.iter().enumerate() {
            let problem = match self.list {
                EditableList::AllowOut => match parse_allow_out_entry(entry) {
                    Ok(AllowOutEntry::Network(net)) => closed.unreachable_problem(&net),
                    _ => None,
                },
                EditableList::DenyOut => {
                    parse_deny_out_entry(entry).ok().and_then(|net| preceding_allow(policy, &net))
                }
            };
            if let Some(problem) = problem {
                return Err(ValidationError::about_entry(
                    format!("entries[{place}]"),
                    entry,
                    problem,
                ));
            }
        }
        Ok(())
    }
}

/// The entry of `allowOut` that allows a whole network, which therefore cannot be denied.
fn preceding_allow(policy: &Policy, net: &IpNet) -> Option<String> {
    let place = policy.allow_out().iter().position(|entry| match entry {
        AllowOutEntry::Network(allowed) => allowed.contains(net),
        AllowOutEntry::Domain(_) => false,
    })?;
    let allowed = policy.allow_out().get(place)?;
    Some(format!(
        "allowOut[{place}] ({allowed}) allows it, and allowOut precedes denyOut; remove that entry \
         with `allow --remove`"
    ))
}

/// Removes entries from a list.
fn remove_entries(spec: &mut SandboxSpec, list: EditableList, removed: &[String]) {
    let removed: HashSet<&str> = removed.iter().map(String::as_str).collect();
    if let Some(entries) = list.entries(spec) {
        entries.retain(|entry| !removed.contains(entry.as_str()));
    }
}

/// Makes an entry permanent. Returns whether it was not.
fn remove_temporary(spec: &mut SandboxSpec, list: EditableList, entry: &str) -> bool {
    let before = spec.temporary.len();
    spec.temporary.retain(|temporary| temporary.list != list || temporary.entry != entry);
    spec.temporary.len() < before
}

impl SandboxSpec {
    /// Removes the entries that end at `now` or before. Returns them.
    pub fn remove_expired(&mut self, now: Timestamp) -> Vec<TemporaryEntry> {
        let (expired, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.temporary).into_iter().partition(|entry| entry.until <= now);
        self.temporary = kept;
        for list in [EditableList::AllowOut, EditableList::DenyOut] {
            let ended = expired.iter().filter(|temporary| temporary.list == list);
            let ended: Vec<String> = ended.map(|temporary| temporary.entry.clone()).collect();
            remove_entries(self, list, &ended);
        }
        expired
    }

    /// The time at which the next entry, or the observation, ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.temporary.iter().map(|entry| entry.until).chain(self.observe_until).min()
    }

    /// The times at which what is left of the lists may not be valid, in order: when an entry ends
    /// that others need, which only a denial of everything is (domains need it), and when the last
    /// one ends. A policy is valid in between, and there are few such times however many entries end.
    #[must_use]
    pub fn critical_expiries(&self) -> Vec<Timestamp> {
        let is_needed = |temporary: &&TemporaryEntry| {
            temporary.list == EditableList::DenyOut
                && parse_deny_out_entry(&temporary.entry).is_ok_and(|net| is_all_traffic(&net))
        };
        let needed = self.temporary.iter().filter(is_needed).map(|temporary| temporary.until);
        let last = self.temporary.iter().map(|temporary| temporary.until).max();
        let mut times: Vec<_> = needed.chain(last).collect();
        times.sort_unstable();
        times.dedup();
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyDefaults, parse_json};

    fn spec(network: &str) -> SandboxSpec {
        let text = format!(
            r#"{{"sandboxID":"web","interface":"tap0","addresses":["10.11.0.2"],"network":{network}}}"#
        );
        parse_json(text.as_bytes()).expect("a sandbox")
    }

    fn edit(list: EditableList, entries: &[&str]) -> ListEdit {
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        ListEdit { list, entries, remove: false, until: None }
    }

    fn strings(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn entries_are_added_once_whatever_their_spelling() {
        let mut spec = spec(r#"{"allowOut":["203.0.113.7","a.example"],"denyOut":["0.0.0.0/0"]}"#);
        let edit = edit(EditableList::AllowOut, &["203.0.113.7/32", "A.example.", "b.example"]);
        let change = edit.edit_spec(&mut spec).expect("edited");
        assert_eq!(change.unchanged, strings(&["203.0.113.7", "a.example"]));
        assert_eq!(change.added, strings(&["b.example"]));
        let expected = strings(&["203.0.113.7", "a.example", "b.example"]);
        assert_eq!(spec.network.allow_out, Some(expected));
    }

    #[test]
    fn entries_are_removed_and_a_missing_one_is_an_error() {
        let mut spec = spec(r#"{"denyOut":["203.0.113.7/24","198.51.100.1"]}"#);
        let mut edit = edit(EditableList::DenyOut, &["203.0.113.0/24"]);
        edit.remove = true;
        let change = edit.edit_spec(&mut spec).expect("edited");
        assert_eq!(change.removed, strings(&["203.0.113.7/24"]));
        let error = edit.edit_spec(&mut spec).expect_err("it is gone");
        assert_eq!(error.field, "entries[0]");
        assert!(error.problem.contains("is not in denyOut"), "{error}");
    }

    #[test]
    fn invalid_entries_are_refused_with_what_to_write() {
        let mut spec = spec("{}");
        for (list, entry, problem) in [
            (EditableList::AllowOut, "https://a.example/x", "write a.example alone"),
            (EditableList::DenyOut, "a.example", "a domain cannot be denied"),
        ] {
            let error = edit(list, &[entry]).edit_spec(&mut spec).expect_err(entry);
            assert!(error.problem.contains(problem), "{error}");
        }
        assert!(edit(EditableList::AllowOut, &[]).edit_spec(&mut spec).is_err());
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let network = r#"{"allowOut":["203.0.113.0/24"],"denyOut":["0.0.0.0/0"]}"#;
        let (floor, spec) = (Floor::default(), spec(network));
        let policy = spec.build_policy(&PolicyDefaults::default(), &floor).expect("a policy");
        let problem = |list, entry| {
            edit(list, &[entry]).check_effect(&policy, &floor).expect_err(entry).problem
        };
        let denied = problem(EditableList::AllowOut, "169.254.169.254");
        assert!(denied.contains("platform_deny (169.254.0.0/16)"), "{denied}");
        let allowed = problem(EditableList::DenyOut, "203.0.113.7");
        assert!(allowed.contains("allowOut[0] (203.0.113.0/24) allows it"), "{allowed}");
        for (list, entry) in [
            (EditableList::AllowOut, "198.51.100.1"),
            (EditableList::AllowOut, "a.example"),
            (EditableList::DenyOut, "203.0.0.0/8"),
        ] {
            edit(list, &[entry]).check_effect(&policy, &floor).expect(entry);
        }
    }

    #[test]
    fn temporary_entries_end_and_permanent_ones_stay() {
        let mut spec = spec(r#"{"allowOut":["203.0.113.1"],"denyOut":["0.0.0.0/0"]}"#);
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut edit = edit(EditableList::AllowOut, &["203.0.113.1", "203.0.113.2", "a.example"]);
        edit.until = Some(at(100));
        edit.edit_spec(&mut spec).expect("edited");
        edit.entries = strings(&["203.0.113.2"]);
        edit.until = Some(at(200));
        edit.edit_spec(&mut spec).expect("edited");
        assert!(spec.remove_expired(at(99)).is_empty());
        assert_eq!(spec.remove_expired(at(100)).len(), 1);
        assert_eq!(spec.network.allow_out, Some(strings(&["203.0.113.1", "203.0.113.2"])));
        edit.until = None;
        edit.edit_spec(&mut spec).expect("made permanent");
        assert!(spec.remove_expired(at(1000)).is_empty());
        assert_eq!(spec.network.allow_out, Some(strings(&["203.0.113.1", "203.0.113.2"])));
    }

    #[test]
    fn only_the_end_of_what_others_need_and_the_last_end_are_critical() {
        let mut spec = spec("{}");
        let at = |second| Timestamp::from_second(second).expect("a time");
        for second in 0..1_000 {
            let entry = match second {
                300 => "0.0.0.0/0".to_owned(),
                _ => format!("2001:db8::{second:x}"),
            };
            let mut edit = edit(EditableList::DenyOut, &[&entry]);
            edit.until = Some(at(second));
            edit.edit_spec(&mut spec).expect("edited");
        }
        assert_eq!(spec.critical_expiries(), [at(300), at(999)]);
        spec.remove_expired(at(300));
        assert_eq!(spec.critical_expiries(), [at(999)]);
        spec.remove_expired(at(999));
        assert_eq!(spec.critical_expiries(), []);
    }
}
