//! Sandboxes: create, replace, show, delete.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Api, Problem, body::Body};
use crate::{
    agent::{Report, only},
    policy::{Invalid, SandboxId, SandboxSpec},
};

/// The spellings of the ID in a body.
const ID: [&str; 3] = ["sandboxID", "sandboxId", "sandbox_id"];

/// List sandboxes with their counters
#[utoipa::path(
    get, path = "/agent/v1/sandboxes", tag = "Agent", operation_id = "list",
    responses((status = 200, description = "All sandboxes", body = Vec<Report>)),
)]
pub async fn list(State(api): State<Api>) -> Result<Json<Vec<Report>>, Problem> {
    Ok(Json(api.agent.list().await?))
}

/// Show a sandbox with its counters
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "get",
    responses(
        (status = 200, description = "The sandbox, without secrets", body = Report),
        (status = 404, response = Problem),
    )
)]
pub async fn get(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Report>, Problem> {
    Ok(Json(api.agent.get(&id).await?))
}

/// Create or replace a sandbox
///
/// The body may leave out the ID.
#[utoipa::path(
    put, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "apply",
    request_body = SandboxSpec,
    responses(
        (status = 200, description = "Its policy is enforced", body = Report),
        (status = 400, response = Problem), (status = 413, response = Problem),
        (status = 503, response = Problem),
    )
)]
pub async fn put(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Report>, Problem> {
    let known: SandboxId = id.parse()?;
    let spec = named(&body, &id)?;
    if spec.sandbox_id != known {
        let problem = format!("the path says {known}; give the same ID or leave it out");
        return Err(Invalid::entry("sandboxID", spec.sandbox_id.as_str(), problem).into());
    }
    only(api.agent.apply(vec![spec]).await?)?;
    Ok(Json(api.agent.get(&id).await?))
}

/// What became of one sandbox of many.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which one.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    sandbox_id: SandboxId,
    /// The status it would have alone; absent if all went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Create or replace many sandboxes
///
/// All are checked before the first is changed; what the kernel then refuses is said per sandbox,
/// with code and message.
#[utoipa::path(
    put, path = "/agent/v1/sandboxes", tag = "Agent", operation_id = "apply_all",
    request_body = Vec<SandboxSpec>,
    responses(
        (status = 200, description = "All policies are enforced", body = Vec<Outcome>),
        (status = 207, description = "Some are not", body = Vec<Outcome>),
        (status = 400, response = Problem), (status = 413, response = Problem),
    )
)]
pub async fn put_all(
    State(api): State<Api>,
    body: Body,
) -> Result<(StatusCode, Json<Vec<Outcome>>), Problem> {
    let outcomes = api.agent.apply(body.parse()?).await?;
    let failed = outcomes.iter().any(|(_, outcome)| outcome.is_err());
    let status = if failed { StatusCode::MULTI_STATUS } else { StatusCode::OK };
    Ok((status, Json(outcomes.into_iter().map(outcome).collect())))
}

/// Detach a sandbox and forget it
#[utoipa::path(
    delete, path = "/agent/v1/sandboxes/{id}", tag = "Agent", operation_id = "delete",
    responses(
        (status = 204, description = "Its interface is open"),
        (status = 404, response = Problem),
    )
)]
pub async fn delete(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    api.agent.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The specification in a body, with the path's ID if it has none.
fn named(body: &Body, id: &str) -> Result<SandboxSpec, Problem> {
    let fields: Result<Map<String, Value>, Problem> = body.parse();
    match fields {
        Ok(mut fields) if !ID.iter().any(|name| fields.contains_key(*name)) => {
            fields.insert(ID[0].to_owned(), Value::from(id));
            let text = serde_json::to_vec(&fields).map_err(Problem::internal)?;
            Ok(crate::policy::parse(&text)?)
        }
        // Read from the text itself: a field given twice shows there only.
        _ => body.parse(),
    }
}

fn outcome((sandbox_id, outcome): (SandboxId, Result<(), crate::agent::Error>)) -> Outcome {
    let problem = outcome.err().map(Problem::from);
    Outcome {
        sandbox_id,
        code: problem.as_ref().map(|problem| problem.status().as_u16()),
        message: problem.map(|problem| problem.message().to_owned()),
    }
}
