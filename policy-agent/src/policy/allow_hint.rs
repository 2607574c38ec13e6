//! What would allow a destination that was denied.

use std::net::IpAddr;

use policy_common::reason::Reason;

use super::{DomainPattern, SandboxId};

/// How a denied destination could be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowHint {
    /// This entry of `allowOut` allows it.
    Entry(String),
    /// This has to be changed instead.
    Setting(&'static str),
}

impl AllowHint {
    /// The hint for a denial. `None` if nothing but another request helps.
    #[must_use]
    pub fn for_denial(reason: Reason, address: Option<IpAddr>, name: Option<&str>) -> Option<Self> {
        match reason {
            Reason::NameNotAllowed => allowing_entry(name?).map(Self::Entry),
            Reason::DenyOut => Some(Self::Entry(address?.to_canonical().to_string())),
            _ => setting(reason).map(Self::Setting),
        }
    }

    /// The entry of `allowOut`.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Setting(_) => None,
        }
    }

    /// The command that adds the entry, or the setting to change.
    #[must_use]
    pub fn advice(&self, sandbox: &SandboxId) -> String {
        match self {
            // A shell would expand a wildcard.
            Self::Entry(entry) if entry.contains('*') => {
                format!("policy-agent allow {sandbox} '{entry}'")
            }
            Self::Entry(entry) => format!("policy-agent allow {sandbox} {entry}"),
            Self::Setting(setting) => (*setting).to_owned(),
        }
    }
}

/// The narrowest entry of `allowOut` that matches a name as the client sent it. Labels that begin or
/// end with a hyphen match wildcards only.
fn allowing_entry(name: &str) -> Option<String> {
    if let Ok(pattern) = DomainPattern::parse(name) {
        return Some(pattern.to_string());
    }
    let (_, parent) = name.split_once('.')?;
    DomainPattern::parse(&format!("*.{parent}")).ok().map(|pattern| pattern.to_string())
}

/// What to change for reasons that no entry of `allowOut` overrides.
const fn setting(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::PlatformDeny | Reason::HostAddress => Some("the operator's platform_allow only"),
        Reason::InboundRefused => Some("the operator's inbound = \"any\" only"),
        Reason::TooManyConnections => Some("the operator's max_connections_per_sandbox only"),
        Reason::SpoofedIp | Reason::NeighborSpoof => Some("addresses of the sandbox"),
        Reason::SpoofedMac => Some("mac of the sandbox"),
        Reason::NotJudgeable => Some("the server's address in allowOut"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(reason: Reason, address: &str, name: Option<&str>) -> Option<String> {
        let hint = AllowHint::for_denial(reason, address.parse().ok(), name)?;
        Some(hint.advice(&"web".parse().expect("an ID")))
    }

    #[test]
    fn a_hint_is_the_command_that_allows_it() {
        let named = |name| advice(Reason::NameNotAllowed, "203.0.113.7", Some(name));
        let command = |entry: &str| Some(format!("policy-agent allow web {entry}"));
        assert_eq!(named("Registry.example.com."), command("registry.example.com"));
        assert_eq!(named("-a.example.com"), command("'*.example.com'"));
        assert_eq!(named("-a"), None);
        let by_address = |address| advice(Reason::DenyOut, address, None);
        assert_eq!(by_address("9.9.9.9"), command("9.9.9.9"));
        assert_eq!(by_address("2001:db8::7"), command("2001:db8::7"));
        assert_eq!(by_address("not known"), None);
    }

    #[test]
    fn what_no_policy_opens_is_the_operators() {
        for reason in [Reason::PlatformDeny, Reason::HostAddress] {
            let said = advice(reason, "169.254.169.254", None);
            assert_eq!(said.as_deref(), Some("the operator's platform_allow only"));
        }
        assert_eq!(advice(Reason::Malformed, "203.0.113.7", None), None);
    }

    #[test]
    fn the_entry_of_a_hint_is_accepted_and_matches() {
        for name in ["a.example", "xn--bcher-kva.example", "-x.a.example", "r3---sn.a.example"] {
            let hint = AllowHint::for_denial(Reason::NameNotAllowed, None, Some(name));
            let hint = hint.expect(name);
            let pattern = DomainPattern::parse(hint.entry().expect(name)).expect(name);
            let asked = super::super::DomainName::parse_requested(name).expect(name);
            assert!(pattern.matches(&asked), "{pattern} and {name}");
        }
    }
}
