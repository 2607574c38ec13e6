//! Validates `network.rules`. The messages are those of E2B. They never quote a value.

use std::collections::{BTreeMap, HashSet};

use http::{HeaderName, header};

use super::super::{DomainPattern, ValidationError};
use super::{
    HeaderRule, HeaderRules, HeaderTemplate, NetworkRule, NetworkRules, RuleLimits, RulesByDomain,
    header_template::TemplateError,
};

const RULES_FIELD: &str = "network.rules";

/// Maximum number of characters of a key.
const MAX_KEY_CHARS: usize = 128;
/// Maximum number of rules of a domain.
const MAX_RULES_PER_DOMAIN: usize = 1;
/// Maximum number of characters of a header's name.
const MAX_HEADER_NAME_CHARS: usize = 64;
/// Maximum number of characters of a key or a header's name in an error.
const MAX_SHOWN_CHARS: usize = 256;

/// Headers that belong to the connection, or decide where a request ends or goes.
const CONNECTION_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
];
/// Prefix of further ones.
const PROXY_PREFIX: &str = "proxy-";

impl HeaderRules {
    /// Validates `network.rules`.
    ///
    /// # Errors
    /// A key, a header or a number of them is invalid.
    pub fn new(rules: &NetworkRules, limits: &RuleLimits) -> Result<Self, ValidationError> {
        let about_rules = |problem| ValidationError::about_field(RULES_FIELD, problem);
        Self::parse(rules, limits).map_err(about_rules)
    }

    fn parse(rules: &NetworkRules, limits: &RuleLimits) -> Result<Self, String> {
        if rules.domains().len() > limits.domains {
            return Err(format!("Network rules can have at most {} domains.", limits.domains));
        }
        let mut by_domain = RulesByDomain::default();
        for (key, rules) in rules.domains() {
            let rule = parse_domain(key, rules, limits)?;
            let (names, name) = match &rule.key {
                DomainPattern::Subdomains(apex) => (&mut by_domain.wildcards, apex.clone()),
                DomainPattern::Exact(name) => (&mut by_domain.exact, name.clone()),
                DomainPattern::AnyDomain => return Err(invalid_domain(key)),
            };
            if names.insert(name, rule).is_some() {
                return Err(format!("Rule domain {} is given twice.", shown(key)));
            }
        }
        Ok(Self(by_domain.into()))
    }
}

fn parse_domain(
    key: &str,
    rules: &[NetworkRule],
    limits: &RuleLimits,
) -> Result<HeaderRule, String> {
    let pattern = parse_key(key)?;
    if rules.len() > MAX_RULES_PER_DOMAIN {
        let rules = "transform rule";
        return Err(format!(
            "Domain {} can have at most {MAX_RULES_PER_DOMAIN} {rules}.",
            shown(key)
        ));
    }
    let transform = rules.first().and_then(|rule| rule.transform.as_ref());
    let given = transform.map(|transform| &transform.headers);
    if given.is_some_and(|headers| headers.len() > limits.headers) {
        let most = limits.headers;
        return Err(format!("Domain {} can have at most {most} headers per rule.", shown(key)));
    }
    let mut headers = BTreeMap::new();
    for (name, value) in given.into_iter().flatten() {
        let header = parse_header_name(name, key)?;
        let template = parse_value(value.reveal(), name, key, limits)?;
        if headers.insert(header.as_str().to_owned(), (header, template)).is_some() {
            return Err(format!("{} is given twice.", header_in_rule(name, key)));
        }
    }
    let headers: Vec<_> = headers.into_values().collect();
    check_secrets(key, &headers, limits)?;
    Ok(HeaderRule { key: pattern, headers })
}

fn parse_key(key: &str) -> Result<DomainPattern, String> {
    if key.trim().is_empty() {
        return Err("Rule domain must not be empty.".to_owned());
    }
    if key.chars().count() > MAX_KEY_CHARS {
        let limit = format!("maximum length of {MAX_KEY_CHARS} characters");
        return Err(format!("Rule domain {} exceeds {limit}.", shown(key)));
    }
    match DomainPattern::parse(key) {
        Ok(pattern @ (DomainPattern::Exact(_) | DomainPattern::Subdomains(_))) => Ok(pattern),
        Ok(DomainPattern::AnyDomain) | Err(_) => Err(invalid_domain(key)),
    }
}

fn invalid_domain(key: &str) -> String {
    format!("Rule domain {} is not a valid domain name.", shown(key))
}

fn parse_header_name(name: &str, key: &str) -> Result<HeaderName, String> {
    if name.is_empty() {
        return Err(format!("Header name in rule for domain {} must not be empty.", shown(key)));
    }
    let header = format!("Header name {} in rule for domain {}", shown(name), shown(key));
    if name.chars().count() > MAX_HEADER_NAME_CHARS {
        let limit = format!("maximum length of {MAX_HEADER_NAME_CHARS} characters");
        return Err(format!("{header} exceeds {limit}."));
    }
    let Ok(parsed) = name.parse::<HeaderName>() else {
        return Err(format!("{header} must contain only valid HTTP token characters."));
    };
    if CONNECTION_HEADERS.contains(&parsed) || parsed.as_str().starts_with(PROXY_PREFIX) {
        let reason = "the connection decides on it";
        return Err(format!("{} cannot be set: {reason}.", header_in_rule(name, key)));
    }
    Ok(parsed)
}

fn header_in_rule(name: &str, key: &str) -> String {
    format!("Header {} in rule for domain {}", shown(name), shown(key))
}

fn parse_value(
    value: &str,
    name: &str,
    key: &str,
    limits: &RuleLimits,
) -> Result<HeaderTemplate, String> {
    let what = || format!("Value for header {} in rule for domain {}", shown(name), shown(key));
    if value.len() > limits.value_bytes {
        let limit = format!("maximum length of {} characters", limits.value_bytes);
        return Err(format!("{} exceeds {limit}.", what()));
    }
    HeaderTemplate::parse(value).map_err(|error| match error {
        TemplateError::InvalidCharacter => format!("{} contains invalid characters.", what()),
        TemplateError::Malformed => {
            "Network transform header contains a malformed E2B placeholder.".to_owned()
        }
        TemplateError::Identity => format!(
            "{} refers to an identity token (${{e2b.identity.…}}), which this agent cannot mint; \
             use a secret: ${{e2b.secrets.<name>}}.",
            what()
        ),
    })
}

fn check_secrets(
    key: &str,
    headers: &[(HeaderName, HeaderTemplate)],
    limits: &RuleLimits,
) -> Result<(), String> {
    let names: HashSet<_> = headers.iter().flat_map(|(_, template)| template.secrets()).collect();
    if names.len() <= limits.secrets {
        return Ok(());
    }
    Err(format!("Rule domain {} references more than {} secrets.", shown(key), limits.secrets))
}

/// Quotes a key or a header's name. Control characters are escaped, and long text is cut off.
fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}
