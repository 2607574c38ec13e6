//! The domain entries of `allowOut`, indexed so that matching a name takes one lookup per label,
//! regardless of the number of entries.

use std::{borrow::Borrow, collections::HashMap};

use super::{DomainName, DomainPattern, Policy, rule_reference};

/// The patterns of one policy with their indexes in `allowOut`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainSet {
    exact_domains: HashMap<DomainName, u32>,
    subdomains_of: HashMap<DomainName, u32>,
    any_domain: Option<u32>,
}

impl DomainSet {
    /// Indexes the patterns of a policy. Of equal patterns, the first is used.
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

    /// The index in `allowOut` of the most specific matching pattern.
    #[must_use]
    pub fn most_specific_match(&self, name: &DomainName) -> Option<u32> {
        let exact = self.exact_domains.get(name).copied();
        exact.or_else(|| self.covering_wildcard(name).map(|(place, _)| place)).or(self.any_domain)
    }

    /// The index in `allowOut` of the first pattern equal to this one.
    #[must_use]
    pub fn first_equal(&self, pattern: &DomainPattern) -> Option<u32> {
        match pattern {
            DomainPattern::Exact(name) => self.exact_domains.get(name).copied(),
            DomainPattern::Subdomains(apex) => self.subdomains_of.get(apex).copied(),
            DomainPattern::AnyDomain => self.any_domain,
        }
    }

    /// The longest wildcard `*.apex` that matches a name: its index in `allowOut`, and its apex.
    #[must_use]
    pub fn covering_wildcard<'a>(&self, name: &'a DomainName) -> Option<(u32, &'a str)> {
        parent_domains(name).find_map(|apex| Some((*self.subdomains_of.get(apex)?, apex)))
    }
}

/// The parent domains of a name, longest first.
pub(super) fn parent_domains(name: &DomainName) -> impl Iterator<Item = &str> {
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
