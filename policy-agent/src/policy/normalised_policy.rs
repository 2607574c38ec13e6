//! Converts a policy back to configuration, for the output of `check` and the API.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{HeaderRule, Policy, ProxyTls, Socks5Proxy};

/// A policy in its normal form. Parsing it results in the same policy, except for the proxy's
/// password and the values of headers, which are never output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NormalisedPolicy {
    /// `false`: denies all traffic that `allowOut` does not allow.
    pub allow_internet_access: bool,
    /// The network configuration.
    pub network: NormalisedNetwork,
}

/// `network` in its normal form. Lists keep their order and duplicates, so that the indexes in
/// events and explanations remain valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NormalisedNetwork {
    /// CIDRs with their host bits cleared, and domains in A-label form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_out: Vec<String>,
    /// CIDRs with their host bits cleared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_out: Vec<String>,
    /// As given. Absent if the default nameserver applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<IpAddr>>,
    /// The SOCKS5 proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<NormalisedEgressProxy>,
    /// The header rules, with null in place of each value.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub rules: Map<String, Value>,
    /// Whether the public URL works without the traffic token.
    pub allow_public_traffic: bool,
    /// CIDRs with their host bits cleared. Absent if all clients are admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_public_from: Option<Vec<String>>,
    /// The Host header that the service in the sandbox receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_request_host: Option<String>,
    /// Ports on which the gateway connects with TLS.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub https_ports: BTreeSet<u16>,
}

/// `egressProxy` without its password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NormalisedEgressProxy {
    /// `host:port`.
    pub address: String,
    /// The username, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whether and how the connection to the proxy uses TLS.
    pub tls: ProxyTls,
}

impl Policy {
    /// The policy in its normal form, without secrets.
    #[must_use]
    pub fn normalised(&self) -> NormalisedPolicy {
        let given = self.has_domains() && !self.uses_default_nameserver();
        NormalisedPolicy {
            allow_internet_access: self.allows_internet(),
            network: NormalisedNetwork {
                allow_out: self.allow_out().iter().map(ToString::to_string).collect(),
                deny_out: self.deny_out().iter().map(ToString::to_string).collect(),
                dns_servers: given.then(|| self.nameservers().to_vec()),
                egress_proxy: self.egress_proxy().map(|tunnel| NormalisedEgressProxy {
                    address: tunnel.to_string(),
                    username: tunnel.credentials.as_ref().map(|known| known.username.clone()),
                    tls: normalised_tls(tunnel),
                }),
                rules: self.header_rules().iter().map(normalised_rule).collect(),
                allow_public_traffic: self.allow_public_traffic(),
                allow_public_from: self
                    .allow_public_from()
                    .map(|networks| networks.iter().map(ToString::to_string).collect()),
                mask_request_host: self.mask_request_host().map(|mask| mask.as_str().to_owned()),
                https_ports: self.https_ports().clone(),
            },
        }
    }
}

fn normalised_rule(rule: &HeaderRule) -> (String, Value) {
    let headers = rule.headers().map(|(name, _)| (name.to_string(), Value::Null));
    let headers: Map<String, Value> = headers.collect();
    (rule.key().to_string(), json!([{ "transform": { "headers": headers } }]))
}

fn normalised_tls(tunnel: &Socks5Proxy) -> ProxyTls {
    match &tunnel.tls {
        None => ProxyTls::Enabled(false),
        Some(tls) if tls.ca_pem.is_none() && tls.server_name == tunnel.host => {
            ProxyTls::Enabled(true)
        }
        Some(tls) => ProxyTls::Options {
            server_name: (tls.server_name != tunnel.host).then(|| tls.server_name.to_string()),
            ca: tls.ca_pem.clone(),
        },
    }
}
