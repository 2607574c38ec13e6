//! The domain entries of `allowOut`, arranged so that matching a name takes as many look-ups as it
//! has labels, however many entries there are.

use std::{borrow::Borrow, collections::HashMap};

use super::{DomainName, DomainPattern, Policy, rule_reference};

/// The patterns of one policy, with their places in `allowOut`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainSet {
    exact_domains: HashMap<DomainName, u32>,
    subdomains_of: HashMap<DomainName, u32>,
    any_domain: Option<u32>,
}

impl DomainSet {
    /// The patterns of a policy. Of equal ones the first counts.
    #[must_use]
    pub fn from_policy(policy: &Policy) -> Self {
        let mut names = Self::default();
        for (place, pattern) in policy.domains() {
            let place = rule_reference::rule_index(place);
            match pattern {
                DomainPattern::Exact(name) => {
                    _ = names.exact_domains.entry(name.clone()).or_insert(place)
                }
                DomainPattern::Subdomains(apex) => {
                    _ = names.subdomains_of.entry(apex.clone()).or_insert(place)
                }
                DomainPattern::AnyDomain => _ = names.any_domain.get_or_insert(place),
            }
        }
        names
    }

    /// The most specific pattern that matches: its place in `allowOut`.
    #[must_use]
    pub fn most_specific_match(&self, name: &DomainName) -> Option<u32> {
        let exact = self.exact_domains.get(name);
        exact
            .or_else(|| parent_domains(name).find_map(|apex| self.subdomains_of.get(apex)))
            .copied()
            .or(self.any_domain)
    }
}

/// The names that a name lies below, the longest first.
fn parent_domains(name: &DomainName) -> impl Iterator<Item = &str> {
    let mut rest = name.as_str();
    std::iter::from_fn(move || {
        rest = rest.split_once('.')?.1;
        Some(rest)
    })
}

impl Borrow<str> for DomainName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}
