//! The JSON forms that users write. camelCase is canonical, and snake_case is accepted. Both
//! spellings of one field in one object are an error.
//!
//! An unknown field is an error in every form: a mistyped `denyout` must not allow anything. The
//! forms only check types. [`Policy::new`] determines their meaning.

use std::{net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use super::{
    ContainerReference, Floor, MacAddress, NetworkRules, Policy, PolicyDefaults, PolicyMode,
    ProxyTls, SandboxId, SecretString, TemporaryEntry, ValidationError, json_object, whole_number,
};

json_object::deserialize_objects_only! { SandboxSpec, NetworkConfig, EgressProxy }

/// One sandbox in a file of `apply`, in the agent's own API and in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, remote = "Self")]
pub struct SandboxSpec {
    /// Its ID.
    #[serde(rename = "sandboxID", alias = "sandboxId", alias = "sandbox_id")]
    #[schema(value_type = String, pattern = "^[a-z0-9]{1,63}$")]
    pub sandbox_id: SandboxId,
    /// The container that it is, `docker:NAME` or `podman:NAME`. The agent finds its interface,
    /// addresses and MAC address, and follows it when it is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub container: Option<ContainerReference>,
    /// The host-side interface (tap or veth). Required without `container`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Path of the network namespace that contains `interface`. Default: the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub netns: Option<PathBuf>,
    /// The addresses it may send from, at most four per family. Required without `container`.
    #[serde(default, deserialize_with = "addresses", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address it must send from. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddress>,
    /// `false` denies all traffic that `allowOut` does not allow.
    #[serde(default, alias = "allow_internet_access", skip_serializing_if = "Option::is_none")]
    pub allow_internet_access: Option<bool>,
    /// The network configuration.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub network: NetworkConfig,
    /// Entries of `network` that end at a time. `allow --for` and `deny --for` add them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub temporary: Vec<TemporaryEntry>,
    /// Whether the policy is enforced, or only observed. Default: `enforce`.
    #[serde(default, skip_serializing_if = "PolicyMode::is_enforce")]
    pub mode: PolicyMode,
    /// When `"mode": "observe"` ends, RFC 3339. Absent: when the operator ends it.
    #[serde(default, alias = "observe_until", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub observe_until: Option<Timestamp>,
}

impl SandboxSpec {
    /// Builds the policy of this sandbox.
    ///
    /// # Errors
    /// [`Policy::new`] rejects a field. The error contains the field and the entry.
    pub fn build_policy(
        &self,
        defaults: &PolicyDefaults,
        floor: &Floor,
    ) -> Result<Policy, ValidationError> {
        let policy = Policy::new(&self.network, self.allow_internet_access, defaults, floor)?;
        Ok(policy.with_mode(self.mode))
    }

    /// Serialises the sandbox with the proxy's password and the values of headers, which plain
    /// serialisation omits. Only for the agent's state file.
    ///
    /// # Errors
    /// `netns` is not UTF-8. This cannot happen for a specification read from JSON.
    pub fn to_json_with_secrets(&self) -> serde_json::Result<serde_json::Value> {
        let mut value = serde_json::to_value(self)?;
        let proxy = self.network.egress_proxy.as_ref();
        if let Some(password) = proxy.and_then(|proxy| proxy.password.as_ref()) {
            value["network"]["egressProxy"]["password"] = password.reveal().into();
        }
        if let Some(rules) = &self.network.rules {
            value["network"]["rules"] = rules.to_json_with_values();
        }
        Ok(value)
    }
}

/// `network` of one sandbox. An absent list is equivalent to an empty one, except for
/// `dns_servers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields, remote = "Self")]
pub struct NetworkConfig {
    /// IPs, CIDRs, domains, `*.suffix`, `*`.
    #[serde(alias = "allow_out", skip_serializing_if = "Option::is_none")]
    pub allow_out: Option<Vec<String>>,
    /// IPs, CIDRs.
    #[serde(alias = "deny_out", skip_serializing_if = "Option::is_none")]
    pub deny_out: Option<Vec<String>>,
    /// IPs. Absent: the default server, if `allow_out` contains a domain. Empty: none.
    #[serde(alias = "dns_servers", skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<String>>,
    /// The SOCKS5 proxy that tunnels outbound TCP.
    #[serde(alias = "egress_proxy", skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<EgressProxy>,
    /// Whether the public URL works without the traffic token. Default: `true`.
    #[serde(alias = "allow_public_traffic", skip_serializing_if = "Option::is_none")]
    pub allow_public_traffic: Option<bool>,
    /// The networks whose clients may use the public URL. Absent: all. The agent's own field.
    #[serde(alias = "allow_public_from", skip_serializing_if = "Option::is_none")]
    pub allow_public_from: Option<Vec<String>>,
    /// The Host header that the service in the sandbox receives.
    #[serde(alias = "mask_request_host", skip_serializing_if = "Option::is_none")]
    pub mask_request_host: Option<String>,
    /// Ports on which the gateway connects with TLS.
    #[serde(
        alias = "https_ports",
        deserialize_with = "ports",
        skip_serializing_if = "Option::is_none"
    )]
    pub https_ports: Option<Vec<u16>>,
    /// The same as next to `network`. E2B's `PUT …/network` sends it here.
    #[serde(alias = "allow_internet_access", skip_serializing_if = "Option::is_none")]
    pub allow_internet_access: Option<bool>,
    /// From a domain to the headers that the agent sets in HTTPS requests to it. Grants nothing.
    #[serde(deserialize_with = "rules", skip_serializing_if = "Option::is_none")]
    pub rules: Option<NetworkRules>,
}

impl NetworkConfig {
    /// Returns this configuration after `PUT …/network` with `update`. All egress fields are
    /// replaced with those of the update, and omitted ones are cleared. Ingress fields are kept.
    /// The caller clears the sandbox's own `allowInternetAccess`, because that of the update
    /// applies.
    ///
    /// # Errors
    /// The update contains an ingress field, which would have no effect.
    pub fn replace_egress(&self, update: &Self) -> Result<Self, ValidationError> {
        let ingress = [
            ("allowPublicTraffic", update.allow_public_traffic.is_some()),
            ("allowPublicFrom", update.allow_public_from.is_some()),
            ("maskRequestHost", update.mask_request_host.is_some()),
            ("httpsPorts", update.https_ports.is_some()),
        ];
        if let Some((field, _)) = ingress.iter().find(|(_, given)| *given) {
            let problem = "an update of the network changes outbound traffic only; leave it out";
            return Err(ValidationError::about_field(*field, problem));
        }
        Ok(Self {
            allow_public_traffic: self.allow_public_traffic,
            allow_public_from: self.allow_public_from.clone(),
            mask_request_host: self.mask_request_host.clone(),
            https_ports: self.https_ports.clone(),
            ..update.clone()
        })
    }
}

/// `network.egressProxy`. Serialised without the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct EgressProxy {
    /// `host:port`.
    pub address: String,
    /// Absent: no authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Never output.
    #[serde(default, skip_serializing)]
    pub password: Option<SecretString>,
    /// Whether and how the connection to the proxy uses TLS. Default: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProxyTls>,
}

#[cfg(test)]
impl EgressProxy {
    /// A proxy without authentication and TLS.
    pub(super) fn without_options(address: &str) -> Self {
        Self { address: address.to_owned(), username: None, password: None, tls: None }
    }
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NetworkConfig, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Empty rules are absent ones.
fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NetworkRules>, D::Error> {
    let rules = Option::<NetworkRules>::deserialize(deserializer)?;
    Ok(rules.filter(|rules| !rules.is_empty()))
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    /// A separate type per element, so that an error's path ends with its index.
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct AddressElement(IpAddr);

    impl TryFrom<String> for AddressElement {
        type Error = String;

        fn try_from(text: String) -> Result<Self, String> {
            let address = text.parse::<IpAddr>();
            address.map(|address| Self(address.to_canonical())).map_err(|_| {
                format!("{text:?}: write an IP address, without a port or a prefix length")
            })
        }
    }

    let addresses = Vec::<AddressElement>::deserialize(deserializer)?;
    Ok(addresses.into_iter().map(|AddressElement(address)| address).collect())
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u16>>, D::Error> {
    /// A separate type per element, so that an error's path ends with its index.
    struct PortElement(u16);

    impl<'de> Deserialize<'de> for PortElement {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let value = serde_json::Value::deserialize(deserializer)?;
            let port = whole_number(&value).and_then(|port| u16::try_from(port).ok());
            port.filter(|port| *port != 0).map(Self).ok_or_else(|| {
                de::Error::custom(format_args!("{value}: a port is a number from 1 to 65535"))
            })
        }
    }

    let ports = Option::<Vec<PortElement>>::deserialize(deserializer)?;
    Ok(ports.map(|ports| ports.into_iter().map(|PortElement(port)| port).collect()))
}

#[cfg(test)]
mod tests;
