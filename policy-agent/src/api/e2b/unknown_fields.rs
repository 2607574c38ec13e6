//! Unknown fields of a request. E2B's clients send many that have no meaning here. An unknown field
//! about the network is rejected: it may be a misspelt or misplaced rule.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use crate::policy::ValidationError;

/// Prefixes of network-related field names, in lower case and without `_` and `-`.
const NETWORK_PREFIXES: [&str; 11] = [
    "allow",
    "block",
    "deny",
    "dns",
    "egress",
    "firewall",
    "httpsport",
    "ingress",
    "mask",
    "nameserver",
    "rules",
];
/// Substrings of network-related field names.
const NETWORK_SUBSTRINGS: [&str; 3] = ["internet", "network", "proxy"];

/// The names of unknown fields.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct UnknownFields(BTreeMap<String, IgnoredAny>);

impl UnknownFields {
    /// Rejects network-related fields.
    ///
    /// # Errors
    /// A field is about the network; the error names it.
    pub(super) fn reject_network_fields(&self) -> Result<(), ValidationError> {
        let Some(name) = self.0.keys().find(|name| looks_like_network_field(name)) else {
            return Ok(());
        };
        let problem = "unknown field; what a sandbox may reach is said in network and \
                       allow_internet_access";
        Err(ValidationError::about_field(name, problem))
    }
}

fn looks_like_network_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    let has_prefix = NETWORK_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    has_prefix || NETWORK_SUBSTRINGS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_about_the_network_is_refused() {
        for name in [
            "allowOut",
            "allow_out",
            "denyOut",
            "deny-out",
            "egressProxy",
            "dnsServers",
            "Network",
            "networks",
            "allowInternetAcces",
            "internetAccess",
            "httpsPorts",
            "maskRequestHost",
            "rules",
            "socksProxy",
        ] {
            assert!(looks_like_network_field(name), "{name}");
        }
        for name in [
            "autoPause",
            "autoPauseMemory",
            "autoResume",
            "envVars",
            "mcp",
            "volumeMounts",
            "alias",
            "lifecycle",
        ] {
            assert!(!looks_like_network_field(name), "{name}");
        }
    }
}
