//! Fields that the agent does not know. E2B's clients send many, which mean nothing here; but one
//! that speaks of the network, in the wrong place or mistyped, must not be overlooked.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use crate::policy::Invalid;

/// How such names begin, in lower case and without `_` and `-`.
const BEGINNINGS: [&str; 11] = [
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
const PARTS: [&str; 3] = ["internet", "network", "proxy"];

/// The names of unknown fields.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Strangers(BTreeMap<String, IgnoredAny>);

impl Strangers {
    /// # Errors
    /// Names a field that is about the network.
    pub fn refuse_any_about_the_network(&self) -> Result<(), Invalid> {
        let Some(name) = self.0.keys().find(|name| is_about_the_network(name)) else {
            return Ok(());
        };
        let problem = "unknown field; what a sandbox may reach is said in network and \
                       allow_internet_access";
        Err(Invalid::field(name, problem))
    }
}

fn is_about_the_network(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    let begins = BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    begins || PARTS.iter().any(|part| name.contains(part))
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
            assert!(is_about_the_network(name), "{name}");
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
            assert!(!is_about_the_network(name), "{name}");
        }
    }
}
