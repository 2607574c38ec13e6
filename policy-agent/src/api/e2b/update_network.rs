//! `PUT /sandboxes/{id}/network`, and the network of a sandbox in responses.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    api::{ApiState, Problem, json_body::JsonBody},
    policy::{EgressProxy, NetworkConfig, NetworkRules, ProxyTls},
};

/// Replace a sandbox's egress fields
///
/// Omitted fields lose their effect, `allow_internet_access` included. The body is validated before
/// the sandbox is looked up.
#[utoipa::path(
    put, path = "/sandboxes/{id}/network", tag = "E2B", operation_id = "update_sandbox_network",
    request_body(content = ref("#/components/schemas/NetworkUpdate")),
    responses(
        (status = 204, description = "The new policy is enforced"),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn replace(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<StatusCode, Problem> {
    let network: NetworkConfig = body.parse()?;
    api.agent.update_network(id, network).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The requested `network` in the form that E2B's clients read.
///
/// It has no password. Headers of `rules` are as requested, with placeholders in place of secrets.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct E2bNetwork {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_out: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny_out: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_servers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_proxy: Option<E2bEgressProxy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NetworkRules>)]
    rules: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_public_traffic: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_public_from: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_request_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    https_ports: Option<Vec<u16>>,
}

/// `network.egressProxy` without the password.
#[derive(Serialize, ToSchema)]
struct E2bEgressProxy {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<E2bProxyTls>,
}

/// `network.egressProxy.tls` without certificates.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct E2bProxyTls {
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
}

impl From<&NetworkConfig> for E2bNetwork {
    fn from(network: &NetworkConfig) -> Self {
        Self {
            allow_out: network.allow_out.clone(),
            deny_out: network.deny_out.clone(),
            dns_servers: network.dns_servers.clone(),
            egress_proxy: network.egress_proxy.as_ref().map(E2bEgressProxy::from),
            rules: network.rules.as_ref().map(NetworkRules::to_json_with_values),
            allow_public_traffic: network.allow_public_traffic,
            allow_public_from: network.allow_public_from.clone(),
            mask_request_host: network.mask_request_host.clone(),
            https_ports: network.https_ports.clone(),
        }
    }
}

impl From<&EgressProxy> for E2bEgressProxy {
    fn from(proxy: &EgressProxy) -> Self {
        Self {
            address: proxy.address.clone(),
            username: proxy.username.clone(),
            tls: proxy.tls.as_ref().map(E2bProxyTls::from),
        }
    }
}

impl From<&ProxyTls> for E2bProxyTls {
    fn from(tls: &ProxyTls) -> Self {
        match tls {
            ProxyTls::Enabled(enabled) => Self { enabled: *enabled, server_name: None },
            ProxyTls::Options { server_name, .. } => {
                Self { enabled: true, server_name: server_name.clone() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_echo_is_what_was_sent_without_secrets() {
        let sent = json!({
            "allowOut": ["a.example"], "denyOut": ["0.0.0.0/0"], "httpsPorts": [8443],
            "egressProxy": {
                "address": "p.example:1080", "username": "u", "password": "hush",
                "tls": { "enabled": true, "serverName": "n.example", "caCert": "PEM" },
            },
        });
        let sent: NetworkConfig = serde_json::from_value(sent).expect("good");
        let echoed = serde_json::to_value(E2bNetwork::from(&sent)).expect("JSON");
        let expected = json!({
            "allowOut": ["a.example"], "denyOut": ["0.0.0.0/0"], "httpsPorts": [8443],
            "egressProxy": {
                "address": "p.example:1080", "username": "u",
                "tls": { "enabled": true, "serverName": "n.example" },
            },
        });
        assert_eq!(echoed, expected);
    }
}
