//! The JSON form of `network.egressProxy.tls`.

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

/// `network.egressProxy.tls`: `true`, `false`, or an object, which means `true` with these options.
/// E2B's clients send an object with `enabled`, and `ca` as `caCert`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ProxyTls {
    /// With the proxy's own name and the public authorities, or disabled.
    Enabled(bool),
    /// With options.
    Options {
        /// The name that the proxy's certificate must be valid for. Default: that of `address`.
        #[serde(rename = "serverName", skip_serializing_if = "Option::is_none")]
        server_name: Option<String>,
        /// Certificates of the issuing authority, PEM. Default: the public authorities.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
    },
}

impl<'de> Deserialize<'de> for ProxyTls {
    /// Implemented manually, because the errors of an untagged enum contain no field.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct ProxyTlsOptions {
            #[serde(default = "yes")]
            enabled: bool,
            #[serde(default, alias = "server_name")]
            server_name: Option<String>,
            #[serde(default, alias = "caCert", alias = "ca_cert")]
            ca: Option<String>,
        }
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Bool(on) => Ok(Self::Enabled(on)),
            object @ serde_json::Value::Object(_) => {
                let options = serde_json::from_value(object).map_err(de::Error::custom)?;
                match options {
                    ProxyTlsOptions { enabled: true, server_name, ca } => {
                        Ok(Self::Options { server_name, ca })
                    }
                    ProxyTlsOptions { server_name: None, ca: None, .. } => Ok(Self::Enabled(false)),
                    _ => Err(de::Error::custom("enabled is false; leave the other fields out")),
                }
            }
            _ => Err(de::Error::custom("write true, false, or an object with serverName and ca")),
        }
    }
}

fn yes() -> bool {
    true
}
