//! `POST /agent/v1/sandboxes/{id}/diagnosis`: whether a sandbox is enforced as its policy says.

use axum::{
    Json,
    extract::{Path, State},
};

use super::{ApiState, Problem};
use crate::doctor::{DoctorFinding, sandbox_checks};

/// Check that a sandbox is enforced as its policy says
///
/// Looks at its interface, programs, guard, listeners, names and secrets, and runs a datagram through its
/// programs, which is counted like any other. Changes nothing else.
#[utoipa::path(
    post, path = "/agent/v1/sandboxes/{id}/diagnosis", tag = "Agent", operation_id = "diagnose",
    responses(
        (status = 200, description = "What was found", body = Vec<DoctorFinding>),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn diagnose(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Vec<DoctorFinding>>, Problem> {
    let sandbox = api.agent.registry().require(&id)?;
    let checked = sandbox_checks(&sandbox, &api.agent, &api.proxy, &api.secrets).await;
    checked.map(Json).map_err(Problem::internal)
}
