//! The public URLs of sandboxes and the tokens for them: `GET /agent/v1/sandboxes/{id}/url` and
//! `…/token`.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiState, Problem, e2b::LeaseSeconds, json_body::JsonBody};
use crate::{agent::Sandbox, policy::ValidationError};

/// Query parameters of a public URL.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UrlParams {
    /// The port that the service in the sandbox listens on.
    #[param(minimum = 1, maximum = 65535)]
    port: u16,
}

/// The public URL of a port of a sandbox.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicUrl {
    /// The URL.
    pub url: String,
    /// Whether the URL works without the traffic token.
    pub public: bool,
}

/// The traffic token of a sandbox. It grants access to the sandbox's private URLs.
// No `Debug`: the token is a secret.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficToken {
    /// The value of the request header `e2b-traffic-access-token`.
    pub traffic_access_token: String,
}

/// How long a new traffic token is valid.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct NewTokenBody {
    /// Seconds from now.
    expires_in: LeaseSeconds,
}

/// A traffic token that expires.
// No `Debug`: the token is a secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExpiringTrafficToken {
    /// The value of the request header `e2b-traffic-access-token`.
    traffic_access_token: String,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Show the public URL of a port
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/url", tag = "Agent", operation_id = "public_url",
    params(UrlParams),
    responses(
        (status = 200, description = "The URL", body = PublicUrl),
        (status = 400, response = Problem),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn url(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    params: Result<Query<UrlParams>, QueryRejection>,
) -> Result<Json<PublicUrl>, Problem> {
    let params = params.ok().map(|Query(UrlParams { port })| port).filter(|port| *port != 0);
    let problem = "add ?port=N, the port that the service listens on, 1 to 65535";
    let port = params.ok_or_else(|| ValidationError::about_field("port", problem))?;
    let sandbox = api.agent.registry().require(&id)?;
    let url = api.config.public_url(sandbox.id().as_str(), port).ok_or_else(|| {
        Problem::not_found(
            "it has no public URL: [gateway] of the agent's configuration needs a domain, and \
             http or https; and <port>-<ID> may have 63 characters",
        )
    })?;
    Ok(Json(PublicUrl { url, public: is_public(&sandbox) }))
}

/// Show the traffic token of a sandbox
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/token", tag = "Agent", operation_id = "traffic_token",
    responses(
        (status = 200, description = "The token, a secret", body = TrafficToken),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn token(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<TrafficToken>, Problem> {
    let sandbox = api.agent.registry().require(&id)?;
    Ok(Json(TrafficToken {
        traffic_access_token: sandbox.lifetime.traffic_token().reveal().to_owned(),
    }))
}

/// Issue another traffic token, which expires
///
/// It is valid beside the sandbox's own token and others that were issued, of which a sandbox can
/// have 64. It is shown only here.
#[utoipa::path(
    post, path = "/agent/v1/sandboxes/{id}/token", tag = "Agent", operation_id = "issue_token",
    request_body(content = NewTokenBody),
    responses(
        (status = 201, description = "The token, a secret", body = ExpiringTrafficToken),
        (status = 400, response = Problem),
        (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn issue_token(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<(StatusCode, Json<ExpiringTrafficToken>), Problem> {
    let NewTokenBody { expires_in } = body.parse()?;
    let issued = api.agent.issue_token(id, expires_in.duration()).await?;
    let token = ExpiringTrafficToken {
        traffic_access_token: issued.token.reveal().to_owned(),
        expires_at: issued.deadline.ends_at(),
    };
    Ok((StatusCode::CREATED, Json(token)))
}

/// Revoke the traffic tokens that were issued
///
/// The sandbox keeps its own token. Upgraded connections that have begun go on.
#[utoipa::path(
    delete, path = "/agent/v1/sandboxes/{id}/token", tag = "Agent", operation_id = "revoke_tokens",
    responses(
        (status = 204, description = "No issued token is valid"),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn revoke_tokens(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    api.agent.revoke_tokens(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn is_public(sandbox: &Sandbox) -> bool {
    sandbox.active_policy.policy.allow_public_traffic()
}
