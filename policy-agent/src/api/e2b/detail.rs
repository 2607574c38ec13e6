//! `GET /sandboxes/{id}` and `DELETE /sandboxes/{id}`.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{domain, find, list::Summary, network::Network};
use crate::{
    agent::Sandbox,
    api::{Api, Problem},
};

/// A sandbox as E2B's clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    #[serde(flatten)]
    summary: Summary,
    /// What was asked for; absent when it was not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_internet_access: Option<bool>,
    network: Network,
    /// The domain of public URLs; absent without a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
}

impl Detail {
    fn of(api: &Api, sandbox: &Sandbox) -> Self {
        let network = &sandbox.rules.network;
        Self {
            summary: Summary::of(sandbox),
            // One of them says it: both must agree where both are given.
            allow_internet_access: network
                .allow_internet_access
                .or(sandbox.head.allow_internet_access),
            network: Network::from(network),
            domain: domain(api),
        }
    }
}

/// Show a sandbox
#[utoipa::path(
    get, path = "/sandboxes/{id}", tag = "E2B", operation_id = "show_sandbox",
    responses(
        (status = 200, description = "The sandbox, without secrets", body = Detail),
        (status = 404, response = Problem),
    )
)]
pub async fn show(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Detail>, Problem> {
    let sandbox = find(&api, &id)?;
    Ok(Json(Detail::of(&api, &sandbox)))
}

/// End a sandbox
#[utoipa::path(
    delete, path = "/sandboxes/{id}", tag = "E2B", operation_id = "kill_sandbox",
    responses(
        (status = 204, description = "It is no more, and its interface is free again"),
        (status = 404, response = Problem),
    )
)]
pub async fn kill(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    api.agent.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
