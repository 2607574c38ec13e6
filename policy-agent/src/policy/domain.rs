//! Domain names, and the patterns of `allowOut` that match them.

use std::fmt;

use idna::uts46::{self, AsciiDenyList, DnsLength, Uts46};

/// Maximum length of a name without its trailing dot in bytes (RFC 1035, 2.3.4, minus the root's
/// length byte).
const MAX_DOMAIN_LEN: usize = 253;
/// Maximum length of a label in bytes.
const MAX_LABEL_LEN: usize = 63;

/// Characters not allowed in names: UTS 46's `STD3`, except underscores, which names in use contain
/// (`my_bucket.s3.…`).
const DENIED_ASCII: AsciiDenyList = AsciiDenyList::new(true, r##"!"#$%&'()*+,/:;<=>?@[\]^`{|}~"##);

/// A domain name: lower-case labels of letters, digits, hyphens and underscores, with IDNA labels
/// in A-label form (`xn--…`), and without a trailing dot. Never an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(String);

/// The permitted positions of hyphens in a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HyphenPlacement {
    /// Between other characters.
    InnerOnly,
    /// Anywhere.
    Anywhere,
}

impl DomainName {
    /// Parses a name as a user writes it in a policy.
    ///
    /// # Errors
    /// The name is invalid. The message says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_with_hyphens(text, HyphenPlacement::InnerOnly)
    }

    /// Parses a name that a client requests by SNI or Host header. Its labels may start or end with
    /// hyphens, as those of some names in use do. Only a wildcard matches such a name.
    ///
    /// # Errors
    /// The name is invalid. The message says why.
    pub fn parse_requested(text: &str) -> Result<Self, String> {
        Self::parse_with_hyphens(text, HyphenPlacement::Anywhere)
    }

    fn parse_with_hyphens(text: &str, hyphens: HyphenPlacement) -> Result<Self, String> {
        let mut name = to_ascii_domain(text, hyphens)?;
        if name.ends_with('.') {
            name.pop();
        }
        if name.is_empty() {
            return Err("an empty name".to_owned());
        }
        if name.len() > MAX_DOMAIN_LEN {
            return Err(format!("longer than {MAX_DOMAIN_LEN} characters"));
        }
        name.split('.').try_for_each(|one| check_label(one, hyphens))?;
        match name.rsplit('.').next() {
            Some(last) if is_numeric_label(last) => Err("a name cannot end in a number".to_owned()),
            _ => Ok(Self(name)),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is a subdomain of `apex`, at any depth.
    fn is_subdomain_of(&self, apex: &Self) -> bool {
        self.0.strip_suffix(&apex.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

/// Converts a name to lower case and A-labels.
fn to_ascii_domain(text: &str, hyphens: HyphenPlacement) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let has_a_label = lower.split('.').any(|label| label.starts_with("xn--"));
    // Most names need no IDNA, and `check_label` returns better errors.
    if lower.is_ascii() && !has_a_label {
        return Ok(lower);
    }
    // Names in use have hyphens in the third and fourth position (`r3---sn-….example`).
    let hyphens = match hyphens {
        HyphenPlacement::InnerOnly => uts46::Hyphens::CheckFirstLast,
        HyphenPlacement::Anywhere => uts46::Hyphens::Allow,
    };
    Uts46::new()
        .to_ascii(lower.as_bytes(), DENIED_ASCII, hyphens, DnsLength::Ignore)
        .map(String::from)
        .map_err(|_| "not a valid internationalised (IDNA) name".to_owned())
}

fn check_label(label: &str, hyphens: HyphenPlacement) -> Result<(), String> {
    if label.is_empty() {
        return Err("an empty label (a dot at the start, or two dots in a row)".to_owned());
    }
    if label.len() > MAX_LABEL_LEN {
        return Err(format!("a label is longer than {MAX_LABEL_LEN} characters"));
    }
    let known = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some(other) = label.chars().find(|c| !known(c)) {
        return Err(format!("{other:?} cannot stand in a name; only letters, digits, - and _"));
    }
    if hyphens == HyphenPlacement::InnerOnly && (label.starts_with('-') || label.ends_with('-')) {
        return Err("a label cannot start or end with -".to_owned());
    }
    Ok(())
}

/// Whether resolvers would parse a name with this last label as an IPv4 address (WHATWG URL, "ends
/// in a number").
fn is_numeric_label(label: &str) -> bool {
    let hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    label.bytes().all(|byte| byte.is_ascii_digit())
        || label.strip_prefix("0x").is_some_and(hexadecimal)
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A domain entry of `allowOut`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `example.com`: this name only.
    Exact(DomainName),
    /// `*.example.com`: every name below it, at any depth, but not the name itself.
    Subdomains(DomainName),
    /// `*`: any name.
    AnyDomain,
}

impl DomainPattern {
    /// Parses a pattern as the user wrote it.
    ///
    /// # Errors
    /// The pattern is invalid. The message says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::AnyDomain);
        }
        let (suffix, wild) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        if suffix.contains('*') {
            return Err(
                "a wildcard stands only for the whole first label, like *.example.com, or \
                        alone"
                    .to_owned(),
            );
        }
        let name = DomainName::parse(suffix)?;
        if !wild {
            return Ok(Self::Exact(name));
        }
        if name.0.len() + 2 > MAX_DOMAIN_LEN {
            return Err(format!("longer than {MAX_DOMAIN_LEN} characters"));
        }
        Ok(Self::Subdomains(name))
    }

    /// Whether the pattern matches a name.
    #[must_use]
    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Subdomains(apex) => name.is_subdomain_of(apex),
            Self::AnyDomain => true,
        }
    }

    /// Whether some name matches both patterns.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AnyDomain, _) | (_, Self::AnyDomain) => true,
            (Self::Exact(name), pattern) | (pattern, Self::Exact(name)) => pattern.matches(name),
            (Self::Subdomains(one), Self::Subdomains(other)) => {
                one == other || one.is_subdomain_of(other) || other.is_subdomain_of(one)
            }
        }
    }

    /// Orders patterns that match the same name. The most specific one is reported as deciding.
    /// Exact names precede `*.suffix`, long suffixes precede short ones, and `*` is last.
    pub(super) const fn specificity(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Subdomains(apex) => apex.0.len(),
            Self::AnyDomain => 0,
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Subdomains(apex) => write!(f, "*.{apex}"),
            Self::AnyDomain => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests;
