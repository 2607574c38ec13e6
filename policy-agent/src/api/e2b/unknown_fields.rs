//! Fields that the agent does not know. E2B's clients send many, which mean nothing here; but one
//! that speaks of the network, in the wrong place or mistyped, must not be overlooked.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use crate::policy::ValidationError;

/// How such names begin, in lower case and without `_` and `-`.
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
/// What such names contain.
const NETWORK_SUBSTRINGS: [&str; 3] = ["internet", "network", "proxy"];

/// The names of unknown fields.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct UnknownFields(BTreeMap<String, IgnoredAny>);

impl UnknownFields {
    /// # Errors
    /// Names a field that is about the network.
    pub fn reject_network_fields(&self) -> Result<(), ValidationError> {
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
            "iam",
            "volumeMounts",
            "alias",
            "lifecycle",
        ] {
            assert!(!looks_like_network_field(name), "{name}");
        }
    }
}
