//! `GET /sandboxes/{id}` and `DELETE /sandboxes/{id}`.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{public_domain, sandbox_list::E2bSandboxSummary, update_network::E2bNetwork};
use crate::{
    agent::Sandbox,
    api::{ApiState, Problem},
};

/// A sandbox in detail.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct E2bSandboxDetail {
    #[serde(flatten)]
    summary: E2bSandboxSummary,
    /// The requested value. Absent if the request had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_internet_access: Option<bool>,
    network: E2bNetwork,
    /// The domain of public URLs. Absent without a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
}

impl E2bSandboxDetail {
    fn from_sandbox(api: &ApiState, sandbox: &Sandbox) -> Self {
        let network = &sandbox.active_policy.network;
        Self {
            summary: E2bSandboxSummary::from_sandbox(sandbox),
            // Either field may hold it; validation makes sure that both agree.
            allow_internet_access: network
                .allow_internet_access
                .or(sandbox.base_spec.allow_internet_access),
            network: E2bNetwork::from(network),
            domain: public_domain(api),
        }
    }
}

/// Show a sandbox
#[utoipa::path(
    get, path = "/sandboxes/{id}", tag = "E2B", operation_id = "show_sandbox",
    responses(
        (status = 200, description = "The sandbox, without secrets", body = E2bSandboxDetail),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn show(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<E2bSandboxDetail>, Problem> {
    let sandbox = api.agent.registry().require(&id)?;
    Ok(Json(E2bSandboxDetail::from_sandbox(&api, &sandbox)))
}

/// Delete a sandbox
#[utoipa::path(
    delete, path = "/sandboxes/{id}", tag = "E2B", operation_id = "kill_sandbox",
    responses(
        (status = 204, description = "It is no more, and its interface is free again"),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn kill(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    api.agent.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
