//! What `create` and `connect` answer: all that a client needs to speak with a sandbox. It holds
//! secrets, so it has no `Debug`, and no other answer has these fields.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{CLIENT_ID, ENVD_VERSION, public_domain, template_id};
use crate::{
    agent::{HexDisplay, Sandbox},
    api::ApiState,
    policy::{SandboxId, SecretString},
};

/// A sandbox and the means to speak with it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct E2bSandboxAccess {
    /// What it was created from; empty if it was applied.
    #[serde(rename = "templateID")]
    template_id: String,
    /// Its name.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    sandbox_id: SandboxId,
    /// The same for all sandboxes.
    #[serde(rename = "clientID")]
    client_id: &'static str,
    /// The version of E2B's daemon that clients shall expect.
    envd_version: &'static str,
    /// The domain of public URLs, `<port>-<sandboxID>.<domain>`; absent without a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    /// What has to be sent as `e2b-traffic-access-token` where `allowPublicTraffic` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_access_token: Option<String>,
    /// What clients send to E2B's daemon in the sandbox as `X-Access-Token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    envd_access_token: Option<String>,
}

impl E2bSandboxAccess {
    /// With the tokens.
    pub fn with_tokens(api: &ApiState, sandbox: &Sandbox) -> Self {
        let token = sandbox.lifetime.traffic_token();
        Self {
            traffic_access_token: Some(token.reveal().to_owned()),
            envd_access_token: Some(derive_envd_token(token)),
            ..Self::without_tokens(api, sandbox)
        }
    }

    /// Without the tokens.
    pub fn without_tokens(api: &ApiState, sandbox: &Sandbox) -> Self {
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

/// Clients send it into the sandbox, which must not learn the traffic token from it.
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
