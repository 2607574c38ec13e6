//! The response of `create` and `connect`: everything that a client needs to use a sandbox. It
//! holds secrets, so it has no `Debug`. No other response has these fields.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{CLIENT_ID, ENVD_VERSION, public_domain, template_id};
use crate::{
    agent::Sandbox,
    api::ApiState,
    hex::HexDisplay,
    policy::{SandboxId, SecretString},
};

/// A sandbox and what is needed to access it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct E2bSandboxAccess {
    /// The template of the sandbox. Empty if the sandbox was applied.
    #[serde(rename = "templateID")]
    template_id: String,
    /// The ID of the sandbox.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    sandbox_id: SandboxId,
    /// The same for all sandboxes.
    #[serde(rename = "clientID")]
    client_id: &'static str,
    /// The version of envd, E2B's daemon, that clients should expect.
    envd_version: &'static str,
    /// The domain of public URLs, `<port>-<sandboxID>.<domain>`. Absent without a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    /// The value of the request header `e2b-traffic-access-token`, required where
    /// `allowPublicTraffic` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_access_token: Option<String>,
    /// The value of the request header `X-Access-Token` for envd in the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    envd_access_token: Option<String>,
}

impl E2bSandboxAccess {
    /// The response with tokens.
    pub(super) fn with_tokens(api: &ApiState, sandbox: &Sandbox) -> Self {
        let token = sandbox.lifetime.traffic_token();
        Self {
            traffic_access_token: Some(token.reveal().to_owned()),
            envd_access_token: Some(derive_envd_token(token)),
            ..Self::without_tokens(api, sandbox)
        }
    }

    /// The response without tokens.
    pub(super) fn without_tokens(api: &ApiState, sandbox: &Sandbox) -> Self {
        Self {
            template_id: template_id(sandbox),
            sandbox_id: sandbox.id().clone(),
            client_id: CLIENT_ID,
            envd_version: ENVD_VERSION,
            domain: public_domain(api),
            traffic_access_token: None,
            envd_access_token: None,
        }
    }
}

/// Derives the envd token by hashing: clients send it into the sandbox, which must not learn the
/// traffic token.
fn derive_envd_token(traffic: &SecretString) -> String {
    let digest = Sha256::new().chain_update("envd access token of ").chain_update(traffic.reveal());
    HexDisplay(&digest.finalize()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_token_is_the_sandboxs_own_and_tells_nothing() {
        let token = |secret: &str| derive_envd_token(&SecretString::new(secret.to_owned()));
        assert_eq!(token("a"), token("a"));
        assert_ne!(token("a"), token("b"));
        assert_eq!(token("a").len(), 64);
        assert!(!token("0badc0de").contains("0badc0de"));
    }
}
