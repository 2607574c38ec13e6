//! The domain entries of `allowOut`, arranged so that matching a name takes as many look-ups as it
//! has labels, however many entries there are.

use std::{borrow::Borrow, collections::HashMap};

use super::{Name, Pattern, Policy, rule};

/// The patterns of one policy, with their places in `allowOut`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    exact: HashMap<Name, u32>,
    below: HashMap<Name, u32>,
    any: Option<u32>,
}

impl Names {
    /// The patterns of a policy. Of equal ones the first counts.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let mut names = Self::default();
        for (place, pattern) in policy.names() {
            let place = rule::index(place);
            match pattern {
                Pattern::Exact(name) => _ = names.exact.entry(name.clone()).or_insert(place),
                Pattern::Below(apex) => _ = names.below.entry(apex.clone()).or_insert(place),
                Pattern::Any => _ = names.any.get_or_insert(place),
            }
        }
        names
    }

    /// The most specific pattern that matches: its place in `allowOut`.
    #[must_use]
    pub fn matching(&self, name: &Name) -> Option<u32> {
        let exact = self.exact.get(name);
        exact.or_else(|| above(name).find_map(|apex| self.below.get(apex))).copied().or(self.any)
    }
}

/// The names that a name lies below, the longest first.
fn above(name: &Name) -> impl Iterator<Item = &str> {
    let mut rest = name.as_str();
    std::iter::from_fn(move || {
        rest = rest.split_once('.')?.1;
        Some(rest)
    })
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}
