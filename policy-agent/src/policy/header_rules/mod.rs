//! `network.rules`: headers that the agent sets in HTTPS requests to names that the policy also
//! allows. A rule grants nothing.
//!
//! ```text
//! NetworkRules (JSON) ──► validation ──► HeaderRules ──► rule_for(name) ──► HeaderTemplate::render
//! ```

mod header_template;
mod limits;
mod network_rules;
mod validation;

use std::{collections::BTreeMap, fmt, sync::Arc};

use http::HeaderName;

pub use self::{
    header_template::{HeaderTemplate, RenderError},
    limits::RuleLimits,
    network_rules::{NetworkRule, NetworkRules, NetworkTransform},
};
use super::{DomainName, DomainPattern, domain_set::parent_domains};

/// The header rules of one policy. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderRules(Arc<RulesByDomain>);

#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct RulesByDomain {
    exact: BTreeMap<DomainName, HeaderRule>,
    wildcards: BTreeMap<DomainName, HeaderRule>,
}

/// The headers that the agent sets in requests to the names of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderRule {
    key: DomainPattern,
    headers: Vec<(HeaderName, HeaderTemplate)>,
}

impl HeaderRules {
    /// Whether no name has a header to set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().all(HeaderRule::is_empty)
    }

    /// The rule for requests to a name, if it sets headers. The exact key precedes wildcards, and
    /// the longest wildcard precedes the others. Keys are never merged, so a key without headers
    /// exempts its names from a wildcard.
    #[must_use]
    pub fn rule_for(&self, name: &DomainName) -> Option<&HeaderRule> {
        let RulesByDomain { exact, wildcards } = &*self.0;
        let wildcard = || parent_domains(name).find_map(|apex| wildcards.get(apex));
        exact.get(name).or_else(wildcard).filter(|rule| !rule.is_empty())
    }

    /// All rules, also those without headers.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderRule> {
        self.0.exact.values().chain(self.0.wildcards.values())
    }
}

impl HeaderRule {
    /// The key in `network.rules`: a name, or `*.` and a suffix.
    #[must_use]
    pub const fn key(&self) -> &DomainPattern {
        &self.key
    }

    /// The headers, each name once. They replace all lines of that name which the sandbox sent.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderTemplate)> {
        self.headers.iter().map(|(name, template)| (name, template))
    }

    /// Whether the rule sets no header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }
}

impl fmt::Display for HeaderRule {
    /// The key and the names of the headers, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.key)?;
        self.headers.iter().try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

#[cfg(test)]
mod tests;
