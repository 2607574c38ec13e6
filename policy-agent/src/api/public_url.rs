//! The public URLs of sandboxes: `GET /agent/v1/sandboxes/{id}/url` and `…/token`.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::{
    agent::{Error, Sandbox},
    policy::Invalid,
};

/// Which port.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The port that the service in the sandbox listens on.
    #[param(minimum = 1, maximum = 65535)]
    port: u16,
}

/// Where a port is reached.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicUrl {
    /// The URL.
    pub url: String,
    /// Whether it works without the token.
    pub public: bool,
}

/// What opens a sandbox's private URLs. No `Debug`: it is a secret.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// To be sent as `e2b-traffic-access-token`.
    pub traffic_access_token: String,
}

/// The public URL of a port
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/url", tag = "Agent", operation_id = "public_url",
    params(Wanted),
    responses(
        (status = 200, description = "The URL", body = PublicUrl),
        (status = 400, response = Problem),
        (status = 404, response = Problem),
    )
)]
pub async fn url(
    State(api): State<Api>,
    Path(id): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<PublicUrl>, Problem> {
    let wanted = wanted.ok().map(|Query(Wanted { port })| port).filter(|port| *port != 0);
    let problem = "add ?port=N, the port that the service listens on, 1 to 65535";
    let port = wanted.ok_or_else(|| Invalid::field("port", problem))?;
    let sandbox = api.agent.table().find(&id).ok_or(Error::Unknown(id))?;
    let url = api.config.url(sandbox.id().as_str(), port).ok_or_else(|| {
        Problem::not_found(
            "it has no public URL: [gateway] of the agent's configuration needs a domain, and \
             http or https; and <port>-<ID> may have 63 characters",
        )
    })?;
    Ok(Json(PublicUrl { url, public: is_public(&sandbox) }))
}

/// The traffic token of a sandbox
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/token", tag = "Agent", operation_id = "traffic_token",
    responses(
        (status = 200, description = "The token, a secret", body = Token),
        (status = 404, response = Problem),
    )
)]
pub async fn token(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Token>, Problem> {
    let sandbox = api.agent.table().find(&id).ok_or(Error::Unknown(id))?;
    Ok(Json(Token { traffic_access_token: sandbox.life.token().reveal().to_owned() }))
}

fn is_public(sandbox: &Sandbox) -> bool {
    sandbox.rules.policy.allow_public_traffic()
}
