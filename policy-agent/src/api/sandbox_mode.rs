//! `POST /agent/v1/sandboxes/{id}/mode`: observe a sandbox, or enforce its policy.

use axum::{
    Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiState, Problem, json_body::JsonBody, time_query::parse_until};
use crate::policy::{PolicyMode, ValidationError};

/// The mode of a sandbox.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ModeRequest {
    /// Whether to enforce the policy or only to observe.
    pub mode: PolicyMode,
    /// Enforce the policy again after this time, like `30m`, `1h` or `7d`.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

/// The mode that is in force now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrentMode {
    /// The mode.
    mode: PolicyMode,
    /// When an observation ends, RFC 3339. Absent: when the operator ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    observe_until: Option<Timestamp>,
}

/// Observe a sandbox, or enforce its policy
///
/// Of an observed sandbox, what its policy denies passes and is recorded as `would_deny`. The floor is
/// enforced. Needs a key with the role `admin`.
#[utoipa::path(
    post, path = "/agent/v1/sandboxes/{id}/mode", tag = "Agent", operation_id = "set_mode",
    request_body = ModeRequest,
    responses(
        (status = 200, description = "It is in force", body = CurrentMode),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn set_mode(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<CurrentMode>, Problem> {
    let request: ModeRequest = body.parse()?;
    let observe_until = match (&request.duration, request.mode) {
        (Some(text), PolicyMode::Observe) => Some(parse_until("for", text)?),
        (Some(text), PolicyMode::Enforce) => {
            let problem = "only an observation ends; leave it out";
            return Err(ValidationError::about_entry("for", text, problem).into());
        }
        (None, _) => None,
    };
    api.agent.set_mode(id, request.mode, observe_until).await?;
    Ok(Json(CurrentMode { mode: request.mode, observe_until }))
}
